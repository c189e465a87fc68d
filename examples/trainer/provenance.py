"""What measured numbers depend on, to save with them."""

import hashlib
import importlib.metadata
from pathlib import Path
import shutil
import subprocess

import jax

# Settings of JAX that change the numbers of a run, or the types of its state.
NUMERICS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")


def provenance() -> dict[str, object]:
    """Device, revision of this code (with "-dirty" if it was changed), and versions."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform} ({device.device_kind})",
        "revision": revision(),
        "versions": versions(),
    }


def revision() -> str:
    """Revision of this code; "unknown" without Git or a repository.

    Results don't count as a change, since benchmarks write them as they run.
    """
    if shutil.which("git") is None:
        return "unknown"
    commit = _git("rev-parse", "--short=12", "HEAD").stdout.strip()
    if not commit:
        return "unknown"
    code = (":/", ":(top,exclude)benchmarks/results")
    changed = _git("diff", "--quiet", "HEAD", "--", *code).returncode
    return f"{commit}-dirty" if changed else commit


def _git(*arguments):
    return subprocess.run(
        ["git", *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )


def versions() -> dict[str, str]:
    """Versions of the libraries that compute."""
    return {name: importlib.metadata.version(name) for name in ("jax", "optax", "flax")}


def origin() -> dict[str, object]:
    """Versions and numerics, which should be the same when a run resumes."""
    numerics = {name: getattr(jax.config, name) for name in NUMERICS}
    return {"versions": versions(), "numerics": numerics}


def sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
