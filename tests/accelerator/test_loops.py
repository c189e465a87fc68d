"""No climb of convolutions is slower in the library's loop than in straight-line code.

On a CPU there is none in a loop, as tests/library/test_loop.py shows.
"""

import statistics

import jax
import pytest

from benchmarks.speed import networks
from benchmarks.speed.steps import seconds
from benchmarks.speed.steps import straight
import lookbehind_optax as lb
from tests.library.members import SGD

pytestmark = pytest.mark.accelerator

BOUND = 1.1
MEMBERS = {
    "multistep_sam": lb.multistep_sam(SGD, k=4),
    "lookbehind_sam": lb.lookbehind_sam(SGD, k=4),
}


@pytest.mark.skipif(
    jax.default_backend() == "cpu", reason="on CPUs no convolution is in a loop"
)
@pytest.mark.parametrize("model", ["convnet-bn", "wrn-10-1"])
@pytest.mark.parametrize("name", MEMBERS)
def test_a_loop_is_as_fast_as_straight_line_code(name, model, record_property):
    network = networks.make(model, "fp32", 128)
    step = lb.make_step(network.loss, MEMBERS[name])
    arguments = network.params, MEMBERS[name].init(network.params), network.batch
    leaves = jax.tree.leaves(arguments)
    looped = jax.jit(step).lower(*arguments).compile()
    unrolled = jax.jit(straight(step, *arguments)).lower(*leaves).compile()
    seconds(looped, *arguments)
    seconds(unrolled, *leaves)
    ratios = [
        seconds(looped, *arguments, calls=5) / seconds(unrolled, *leaves, calls=5)
        for _ in range(11)
    ]
    record_property("over straight-line code", statistics.median(ratios))
    assert statistics.median(ratios) < BOUND
