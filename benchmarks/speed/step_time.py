"""What a step costs: time, FLOPs and memory over those of its k + 1 gradients.

    python -m benchmarks.speed.step_time

After a warm-up, each step, made by `make_step`, is timed against k + 1 calls of the
jitted gradient alone and against the bare update of its optimizer, within each
repetition, so that a slow phase of the machine affects all three alike. Temporary
memory is what XLA plans for the compiled step beyond arguments and results, less that
of the compiled gradient, in copies of the parameters. XLA counts the FLOPs of a loop's
body once, so the FLOPs are those of the step traced without loops.
"""

import dataclasses
import statistics
from typing import Any

import jax
from matplotlib.figure import Figure
import optax
from pydantic import PositiveInt
from tqdm import tqdm

from benchmarks import reports
from benchmarks.speed import networks
from benchmarks.speed.flags import Names
from benchmarks.speed.flags import Precisions
from benchmarks.speed.precisions import here
from benchmarks.speed.precisions import Precision
from benchmarks.speed.precisions import PRECISIONS
from benchmarks.speed.steps import compile_gradient
from benchmarks.speed.steps import compile_step
from benchmarks.speed.steps import extra_copies
from benchmarks.speed.steps import flops
from benchmarks.speed.steps import Member
from benchmarks.speed.steps import MEMBERS
from benchmarks.speed.steps import ONE_ASCENT
from benchmarks.speed.steps import seconds
from examples.trainer import command
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.command import Several
from examples.trainer.config import Ascents
import lookbehind_optax as lb


@settings
class StepTime(Settings):
    """Measure time, FLOPs and memory of a step over those of its k + 1 gradients.

    Two commands:
      python -m benchmarks.speed.step_time
      python -m benchmarks.speed.step_time --models decoder --members sam --ks 1

    Attributes:
      models: networks, names in examples/images/models.py, or decoder, or decoder-110m.
      members: optimizers; those without a k are measured at k = 1.
      ks: numbers of ascent steps.
      precisions: precisions of the computation; all that the device has if not given.
      batch_size: examples in a batch; each network has its own if not given, a smaller
        one on CPUs.
      repetitions: times that each row is timed.
      output: where to write every sample, as JSON, with the table and the picture
        next to it; replaced if it exists. By default
        benchmarks/results/speed/step_time_DEVICE.json.
    """

    models: Names = tuple(networks.BATCH_SIZES)
    members: Several[Member] = tuple(MEMBERS)
    ks: Several[Ascents] = (0, 1, 2, 5, 10)
    precisions: Precisions = dataclasses.field(default_factory=here)
    batch_size: PositiveInt | None = None
    repetitions: PositiveInt = 5
    output: reports.Output | None = None


def measure(
    network: networks.Network, gradient: Any, member: Member, k: int, repetitions: int
) -> dict[str, Any]:
    """A row: one optimizer's step and the compiled gradient."""
    loss, params, batch = network
    optimizer = MEMBERS[member](k)

    def bare(params, state, batch):
        updates, state = optimizer.update(
            jax.grad(loss)(params, batch),
            state,
            params,
            grad_fn=lambda p, i: jax.grad(loss)(p, batch),
        )
        return optax.apply_updates(params, updates), state

    step = compile_step(network, optimizer)
    arguments = step.arguments
    compiled_bare: Any = jax.jit(bare).lower(*arguments).compile()
    seconds(gradient, params, batch)
    seconds(step.run, *arguments)
    seconds(compiled_bare, *arguments)
    samples = [
        {
            "gradients_s": seconds(gradient, params, batch, calls=k + 1),
            "bare_s": seconds(compiled_bare, *arguments),
            "step_s": seconds(step.run, *arguments),
        }
        for _ in range(repetitions)
    ]
    of_gradients = (k + 1) * flops(jax.grad(loss), params, batch)
    of_step = flops(lb.make_step(loss, optimizer), *arguments)
    return {
        "member": member,
        "k": k,
        "trace_s": step.trace_s,
        "compile_s": step.compile_s,
        "flops_over_gradients": of_step / of_gradients,
        "temporary_parameter_copies": extra_copies(step.run, gradient, network),
        "samples": samples,
    }


def title(results: dict[str, Any]) -> str:
    """What was measured, where, and what a number is."""
    return (
        "Steps beside their k + 1 gradients\n"
        f"{results['device']}; medians, in brackets the range over repetitions; "
        "lines go through medians over optimizers"
    )


def table(results: dict[str, Any]) -> str:
    """A row for each step: medians, with the range over the repetitions."""
    head = ["model", "batch", "precision", "member", "k", "step (ms)"]
    head += ["over k + 1 gradients", "FLOPs over them", "over the bare update"]
    head += ["extra memory (parameter copies)", "compile (s)"]

    def ratio(row, other):
        ratios = [s["step_s"] / s[other] for s in row["samples"]]
        return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"

    rows = [
        [
            row["model"],
            str(row["batch_size"]),
            row["precision"],
            row["member"],
            str(row["k"]),
            f"{1000 * statistics.median(s['step_s'] for s in row['samples']):.1f}",
            ratio(row, "gradients_s"),
            f"{row['flops_over_gradients']:.4f}",
            ratio(row, "bare_s"),
            f"{row['temporary_parameter_copies']:.2f}",
            f"{row['compile_s']:.1f}",
        ]
        for row in results["rows"]
    ]
    return reports.markdown(head, rows)


def figure(results: dict[str, Any]) -> Any:
    """Step time over its gradients, memory and compile time, over k.

    A line is a network in one precision; at each k it goes through the median over
    members and repetitions.
    """
    lines: dict[str, dict[int, list[Any]]] = {}
    for row in results["rows"]:
        line = lines.setdefault(f"{row['model']}, {row['precision']}", {})
        line.setdefault(row["k"], []).append(row)

    def ratios(row):
        return [s["step_s"] / s["gradients_s"] for s in row["samples"]]

    panels = {
        "step over k + 1 gradients": ratios,
        "extra memory (parameter copies)": lambda row: [
            row["temporary_parameter_copies"]
        ],
        "compile time (s)": lambda row: [row["compile_s"]],
    }
    drawing = Figure(figsize=(11, 3.6), layout="constrained")
    axes: Any = drawing.subplots(1, len(panels))
    for ax, (label, values) in zip(axes, panels.items(), strict=True):
        for name, line in lines.items():
            medians = [
                statistics.median(value for row in line[k] for value in values(row))
                for k in sorted(line)
            ]
            ax.plot(sorted(line), medians, marker="o", label=name)
        ax.set_xticks(sorted({k for line in lines.values() for k in line}))
        ax.set_xlabel("k")
        ax.set_ylabel(label)
        low, high = ax.get_ylim()
        ax.set_ylim(min(0, low), 1.05 * high)  # a step may need less memory
    axes[0].axhline(1, color="gray", linewidth=0.8)
    axes[0].legend(fontsize="small")
    return drawing


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    benchmark = command.parse(StepTime, "benchmarks.speed.step_time", arguments)
    output = benchmark.output or reports.default("step_time")
    grid: list[tuple[str, Precision, Member, int]] = [
        (model, precision, member, k)
        for model in benchmark.models
        for precision in benchmark.precisions
        for member in benchmark.members
        for k in benchmark.ks
        if k == 1 or member not in ONE_ASCENT
    ]
    rows, measured, network, gradient = [], None, None, None
    for model, precision, member, k in (progress := tqdm(grid, unit="step")):
        progress.set_description(f"{model}, {precision}, {member}, k = {k}")
        with jax.default_matmul_precision(PRECISIONS[precision].multiplication):
            if measured != (model, precision):
                measured = model, precision
                network = networks.make(model, precision, benchmark.batch_size)
                gradient = compile_gradient(network)
            assert network is not None
            row = measure(network, gradient, member, k, benchmark.repetitions)
        shape = {
            "model": model,
            "precision": precision,
            "batch_size": benchmark.batch_size or networks.default_batch_size(model),
            "parameters": network.size,
        }
        rows.append({**shape, **row})
    reports.save(output, "step_time", {"rows": rows})


if __name__ == "__main__":
    main()
