"""How far TF32 and bfloat16 lead away from float32, on networks with convolutions.

A step's update in the lower precision must differ from that in float32 by at most a
bound of its norm: 1 % in TF32, whose products have 11 bits, and 10 % in bfloat16, whose
activations have 8, over a climb of three ascents.
"""

import jax
import optax
import pytest

from benchmarks.speed import networks
from benchmarks.speed.precisions import PRECISIONS
import lookbehind_optax as lb
from tests.library.members import SGD

pytestmark = pytest.mark.accelerator

BOUNDS = {"tf32": 0.01, "bf16": 0.1}
MEMBERS = {
    "sam": lb.sam(SGD),
    "asam": lb.asam(SGD, rho=0.5),
    "multistep_sam": lb.multistep_sam(SGD, k=3),
    "lookbehind_sam": lb.lookbehind_sam(SGD, k=3),
    "lookbehind_asam_adaptive": lb.lookbehind_asam(
        SGD, rho=0.5, k=3, alpha=lb.adaptive_alpha()
    ),
}


def update(name, model, precision):
    """How far one step leads."""
    with jax.default_matmul_precision(PRECISIONS[precision].multiplication):
        network = networks.make(model, precision, 32)
        optimizer = MEMBERS[name]
        step = jax.jit(lb.make_step(network.loss, optimizer))
        state = optimizer.init(network.params)
        params, _, _ = step(network.params, state, network.batch)
    return optax.tree.sub(params, network.params)


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("model", ["convnet", "decoder"])
@pytest.mark.parametrize("name", MEMBERS)
def test_an_update_is_close_to_that_of_float32(name, model, precision, record_property):
    expected = update(name, model, "fp32")
    apart = optax.tree.sub(update(name, model, precision), expected)
    distance = float(optax.tree.norm(apart) / optax.tree.norm(expected))
    record_property("distance", distance)
    assert distance < BOUNDS[precision]
