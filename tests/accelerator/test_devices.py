"""Data parallel and FSDP, on as many devices as there are."""

import jax
import pytest

from tests.library import test_devices as on_cpus
from tests.library.test_devices import BASES
from tests.library.test_devices import fsdp
from tests.library.test_devices import Layout
from tests.library.test_devices import MEMBERS
from tests.library.test_devices import TRAJECTORIES

pytestmark = pytest.mark.accelerator


def layouts():
    """Of a power of two of the devices, at most 8, by which all sizes divide."""
    devices = max(n for n in (1, 2, 4, 8) if n <= jax.device_count())
    whole, by_data = jax.P(), jax.P("data")
    return {
        "data_parallel": Layout((devices,), whole, whole, whole, whole, by_data),
        "fsdp": fsdp(devices),
    }


@pytest.mark.parametrize(("name", "base"), TRAJECTORIES)
@pytest.mark.parametrize("layout", ["data_parallel", "fsdp"])
def test_the_trajectory_of_one_device(layout, name, base, x64):
    layout = layouts()[layout]
    optimizer = MEMBERS[name].make(BASES[base])
    params = on_cpus.initial_params()
    batch = layout.place_batch(on_cpus.batch_of(on_cpus.EXAMPLES))
    step = on_cpus.compiled_step(layout, optimizer, params, batch)
    placed, state = layout.place(optimizer, params)
    for expected in on_cpus.on_one_device(name, base):
        placed, state, out = step(placed, state, *batch)
        layout.assert_kept((placed, state), params)
        on_cpus.assert_close((placed, state, out), expected)
