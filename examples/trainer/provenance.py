"""What measured numbers depend on, to be saved with them."""

import importlib.metadata
from pathlib import Path
import subprocess

import jax


def provenance() -> dict[str, object]:
    """Device, revision of this code (with "-dirty" if it was changed), and versions."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    device = jax.devices()[0]
    return {
        "device": f"{device.platform} ({device.device_kind})",
        "revision": git.stdout.strip() or "unknown",
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "optax", "flax")
        },
    }
