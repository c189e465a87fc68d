"""The steps that are compared: ours, PyTorch's, and another SAM of Optax."""

from collections.abc import Callable
import time
from typing import Any

import jax
import optax

from benchmarks.speed.networks import DECODERS
from benchmarks.speed.networks import NAMES
from benchmarks.speed.networks import Network
from benchmarks.speed.precisions import Precision
import lookbehind_optax as lb

RATE, MOMENTUM, RHO = 0.1, 0.9, 0.05
BASE = optax.sgd(RATE, momentum=MOMENTUM)
# PyTorch has twins of these.
MODELS = tuple(
    name
    for name in NAMES
    if name == "resnet34" or name.startswith("wrn-") or name in DECODERS
)


def of_jax(
    network: Network, optimizer: Any, donates: bool = True
) -> Callable[[], None]:
    """A jitted step of ours, or of any other transformation of Optax."""
    step = jax.jit(
        lb.make_step(network.loss, optimizer),
        donate_argnums=(0, 1) if donates else (),
    )
    params = jax.tree.map(lambda x: x.copy(), network.params)
    held = [params, optimizer.init(params)]

    def run():
        *held[:], _ = jax.block_until_ready(step(*held, network.batch))

    return run


def ways(
    name: str, network: Network, precision: Precision, k: int, compiles: bool
) -> dict[str, Callable[[], None]]:
    """Steps by name, ours and the peers'; if `compiles`, also a compiled PyTorch."""
    climb = optax.chain(optax.contrib.normalize(), optax.sgd(RHO))
    opaque = optax.contrib.sam(BASE, climb, sync_period=k + 1, opaque_mode=True)
    found = {
        "lookbehind_sam": of_jax(network, lb.lookbehind_sam(BASE, RHO, k, 1 / k)),
        "multistep_sam": of_jax(network, lb.multistep_sam(BASE, RHO, k)),
        # Its state holds the parameters once more, which can't be donated twice.
        "optax.contrib.sam": of_jax(network, opaque, donates=False),
    }
    # Here, so that networks with twins have names where PyTorch isn't.
    from benchmarks.speed import torch_loop

    return found | torch_loop.steps(
        name,
        network,
        precision,
        rho=RHO,
        k=k,
        rate=RATE,
        momentum=MOMENTUM,
        compiles=compiles,
    )


def seconds(run: Callable[[], None]) -> float:
    """Wall time of a step, after a pause.

    The threads of PyTorch and of XLA spin for a while after their work, which slows
    down the next program on the same cores.
    """
    time.sleep(0.1)
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
