"""Which device there is."""

from typing import Any

import jax


def measure(**unused: Any) -> dict[str, Any]:
    """The kind of the devices, as JAX names it, and how many there are."""
    del unused
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": jax.device_count(),
    }
