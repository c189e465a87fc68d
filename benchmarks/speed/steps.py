"""The steps that are measured: of every optimizer, compiled, and timed."""

from collections.abc import Callable
import time
from typing import Any
from typing import Literal
from typing import NamedTuple

import jax
import jax.extend as jex
import optax

from benchmarks.speed.networks import Network
import lookbehind_optax as lb

BASE = optax.sgd(0.1, momentum=0.9)
ADAPTIVE, BY_TENSOR = lb.adaptive_alpha(), lb.adaptive_alpha(per_tensor=True)
Member = Literal[
    "sam",
    "asam",
    "multistep_sam",
    "multistep_sam_average",
    "multistep_asam",
    "gsam",
    "wsam",
    "friendly_sam",
    "lookahead_sam",
    "lookbehind_sam",
    "lookbehind_sam_adaptive",
    "lookbehind_sam_per_tensor",
    "lookbehind_sam_pullback",
    "lookbehind_asam",
]
MEMBERS: dict[Member, Callable[[int], optax.GradientTransformationExtraArgs]] = {
    "sam": lambda k: lb.sam(BASE),
    "asam": lambda k: lb.asam(BASE),
    "multistep_sam": lambda k: lb.multistep_sam(BASE, k=k),
    "multistep_sam_average": lambda k: lb.multistep_sam(BASE, k=k, average=True),
    "multistep_asam": lambda k: lb.multistep_asam(BASE, k=k),
    "gsam": lambda k: lb.gsam(BASE),
    "wsam": lambda k: lb.wsam(BASE),
    "friendly_sam": lambda k: lb.friendly_sam(BASE),
    "lookahead_sam": lambda k: lb.lookahead(lb.sam(BASE)),
    "lookbehind_sam": lambda k: lb.lookbehind_sam(BASE, k=k),
    "lookbehind_sam_adaptive": lambda k: lb.lookbehind_sam(BASE, k=k, alpha=ADAPTIVE),
    "lookbehind_sam_per_tensor": lambda k: lb.lookbehind_sam(
        BASE, k=k, alpha=BY_TENSOR
    ),
    "lookbehind_sam_pullback": lambda k: lb.lookbehind_sam(
        BASE, k=k, pullback="pullback"
    ),
    "lookbehind_asam": lambda k: lb.lookbehind_asam(BASE, k=k),
}
# They have no k.
ONE_ASCENT = ("sam", "asam", "gsam", "wsam", "friendly_sam", "lookahead_sam")


class Compiled(NamedTuple):
    """A step, ready to run.

    Attributes:
      run: from parameters, state and batch to what `make_step` gives.
      arguments: what it takes.
      trace_s: seconds that tracing and lowering took.
      compile_s: seconds that XLA took.
    """

    run: Any
    arguments: tuple[Any, Any, Any]
    trace_s: float
    compile_s: float


def compile_step(
    network: Network, optimizer: optax.GradientTransformationExtraArgs
) -> Compiled:
    """Compiles an optimizer's step on a network's batch."""
    arguments = network.params, optimizer.init(network.params), network.batch
    begun = time.perf_counter()
    lowered: Any = jax.jit(lb.make_step(network.loss, optimizer)).lower(*arguments)
    traced = time.perf_counter()
    compiled = lowered.compile()
    return Compiled(compiled, arguments, traced - begun, time.perf_counter() - traced)


def compile_gradient(network: Network) -> Any:
    """Compiles the gradient alone, of parameters and batch."""
    gradient: Any = jax.jit(jax.grad(network.loss))
    return gradient.lower(network.params, network.batch).compile()


def seconds(function, *arguments, calls=1):
    """Wall time of `calls` calls, one after the other, each waited for."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def straight(function: Any, *arguments: Any) -> Any:
    """A function of the leaves of these arguments, without loops."""
    with jax.disable_jit():
        jaxpr = jax.make_jaxpr(function)(*arguments)
    return jex.core.jaxpr_as_fun(jaxpr)


def flops(function: Any, *arguments: Any) -> float:
    """FLOPs of a call before XLA optimizes it, with every repetition of a loop."""
    lowered: Any = jax.jit(straight(function, *arguments)).lower(
        *jax.tree.leaves(arguments)
    )
    return lowered.cost_analysis()["flops"]


def extra_copies(compiled: Any, gradient: Any, network: Network) -> float:
    """Temporary memory of a step beyond a gradient's, in copies of the parameters."""
    memory = [c.memory_analysis() for c in (compiled, gradient)]
    extra = memory[0].temp_size_in_bytes - memory[1].temp_size_in_bytes
    return extra / (4 * network.size)
