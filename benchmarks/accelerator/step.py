"""What Lookbehind-SAM's step costs over its gradients, over k."""

from pathlib import Path
import statistics
from typing import Any

import jax

from benchmarks.accelerator import outside
from benchmarks.accelerator import targets
from benchmarks.speed import networks
from benchmarks.speed.precisions import Precision
from benchmarks.speed.precisions import PRECISIONS
from benchmarks.speed.steps import compile_gradient
from benchmarks.speed.steps import compile_step
from benchmarks.speed.steps import Compiled
from benchmarks.speed.steps import extra_copies
from benchmarks.speed.steps import MEMBERS
from benchmarks.speed.steps import seconds


def measure(
    model: str,
    precision: Precision,
    batch_size: int,
    ks: list[int],
    repetitions: int,
    folder: Path,
    name: str,
    **unused: Any,
) -> dict[str, Any]:
    """A row for each k, and what the gradient alone takes.

    Args:
      model: network.
      precision: of the computation.
      batch_size: examples in a step.
      ks: numbers of ascent steps.
      repetitions: times that each step is timed.
      folder: of all results; it gets a profile of a step that misses a target.
      name: of the job.
      unused: what other jobs need.
    """
    del unused
    with jax.default_matmul_precision(PRECISIONS[precision].multiplication):
        network = networks.make(model, precision, batch_size)
        gradient = compile_gradient(network)
        rows = []
        for k in ks:
            profile = folder / "profiles" / f"{name}-k{k}"
            rows.append(row(network, gradient, k, repetitions, profile))
    costs = gradient.cost_analysis() or {}
    return {
        "model": model,
        "precision": precision,
        "batch_size": batch_size,
        "parameters": network.size,
        "gradient_flops": costs.get("flops"),
        "gradient_bytes": costs.get("bytes accessed"),
        "rows": rows,
    }


def row(
    network: networks.Network, gradient: Any, k: int, repetitions: int, profile: Path
) -> dict[str, Any]:
    """One k, with times, memory, and what XLA made outside the gradients."""
    step = compile_step(network, MEMBERS["lookbehind_sam"](k))
    seconds(gradient, network.params, network.batch)
    seconds(step.run, *step.arguments)
    samples = [
        {
            "gradients_s": seconds(
                gradient, network.params, network.batch, calls=k + 1
            ),
            "step_s": seconds(step.run, *step.arguments),
        }
        for _ in range(repetitions)
    ]
    copies = extra_copies(step.run, gradient, network)
    ratio = statistics.median(it["step_s"] / it["gradients_s"] for it in samples)
    missed = ratio > targets.OVERHEAD or copies > targets.COPIES
    if missed and jax.default_backend() != "cpu":
        save_profile(step, profile)
    return {
        "k": k,
        "member": "lookbehind_sam",
        "trace_s": step.trace_s,
        "compile_s": step.compile_s,
        "temporary_parameter_copies": copies,
        **memory(step.run),
        "outside": outside.find(step.run, at_least=network.size // 100),
        "profile": profile.name if profile.exists() else None,
        "samples": samples,
    }


def memory(compiled: Any) -> dict[str, Any]:
    """Bytes by XLA's plan, and the most that the device has held so far."""
    planned = compiled.memory_analysis()
    made = planned.output_size_in_bytes - planned.alias_size_in_bytes
    held = planned.argument_size_in_bytes + made
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "temporary_bytes": planned.temp_size_in_bytes,
        "planned_bytes": held + planned.temp_size_in_bytes,
        "device_peak_bytes": stats.get("peak_bytes_in_use"),
    }


def save_profile(step: Compiled, folder: Path) -> None:
    """Saves what the device does in three steps, for TensorBoard or Perfetto."""
    with jax.profiler.trace(str(folder)):
        seconds(step.run, *step.arguments, calls=3)
