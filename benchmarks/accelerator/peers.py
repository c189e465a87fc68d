"""Our step against PyTorch's loop and Optax's SAM, on one network in one precision."""

import importlib.metadata
from typing import Any

import jax

from benchmarks.speed import networks
from benchmarks.speed.peer_steps import seconds
from benchmarks.speed.peer_steps import ways
from benchmarks.speed.precisions import Precision
from benchmarks.speed.precisions import PRECISIONS


def measure(
    model: str,
    precision: Precision,
    batch_size: int,
    ks: list[int],
    repetitions: int,
    compiles: bool,
    **unused: Any,
) -> dict[str, Any]:
    """A row for each k, as `benchmarks.speed.peers` has them.

    Args:
      model: network.
      precision: of the computation.
      batch_size: examples in a step.
      ks: numbers of ascent steps.
      repetitions: times that each step is timed.
      compiles: whether PyTorch's loop is also measured compiled.
      unused: what other jobs need.
    """
    del unused
    rows = []
    with jax.default_matmul_precision(PRECISIONS[precision].multiplication):
        network = networks.make(model, precision, batch_size)
        for k in ks:
            found = ways(model, network, precision, k, compiles)
            for run in found.values():  # compiles
                run()
            samples = [
                {way: seconds(run) for way, run in found.items()}
                for _ in range(repetitions)
            ]
            rows.append({"k": k, "samples": samples})
            jax.clear_caches()
    about = {
        "model": model,
        "precision": precision,
        "batch_size": batch_size,
        "parameters": network.size,
    }
    return {
        "torch": importlib.metadata.version("torch"),
        "rows": [{**about, **row} for row in rows],
    }
