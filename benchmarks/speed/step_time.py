"""What a step costs: time, FLOPs and memory over those of its k + 1 gradients.

    python -m benchmarks.speed.step_time

Each step, made by `make_step`, is timed beside k + 1 calls of the jitted gradient alone
and beside the bare update of its optimizer, after a warm-up, and compared within each
repetition, so that a machine that is slow for a while is slow for all three.
Temporary memory is what XLA plans for the compiled step beyond arguments and results,
less that of the compiled gradient, in copies of the parameters. XLA counts the FLOPs of
a loop's body once, so they are those of the step traced without loops.
"""

from collections.abc import Callable
import dataclasses
import statistics
import time
from typing import Any
from typing import Literal

import jax
import jax.extend as jex
from matplotlib.figure import Figure
import optax
from pydantic import PositiveInt
from tqdm import tqdm

from benchmarks import reports
from benchmarks.speed import networks
from benchmarks.speed.precisions import here
from benchmarks.speed.precisions import Precision
from benchmarks.speed.precisions import PRECISIONS
from benchmarks.speed.precisions import Precisions
from examples.trainer import command
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.command import Several
from examples.trainer.config import Ascents
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
        beside it; replaced if it exists. By default
        benchmarks/results/speed/step_time_DEVICE.json.
    """

    models: networks.Names = tuple(networks.BATCH_SIZES)
    members: Several[Member] = tuple(MEMBERS)
    ks: Several[Ascents] = (0, 1, 2, 5, 10)
    precisions: Precisions = dataclasses.field(default_factory=here)
    batch_size: PositiveInt | None = None
    repetitions: PositiveInt = 5
    output: reports.Output | None = None


def seconds(function, *arguments, calls=1):
    """Wall time of `calls` calls, one after the other, each waited for."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def flops(function: Any, *arguments: Any) -> float:
    """FLOPs of a call before XLA optimizes it, with every repetition of a loop."""
    with jax.disable_jit():  # loops become straight-line code
        jaxpr = jax.make_jaxpr(function)(*arguments)
    lowered: Any = jax.jit(jex.core.jaxpr_as_fun(jaxpr)).lower(
        *jax.tree.leaves(arguments)
    )
    return lowered.cost_analysis()["flops"]


def measure(
    network: networks.Network, gradient: Any, member: Member, k: int, repetitions: int
) -> dict[str, Any]:
    """A row: one optimizer's step beside the compiled gradient."""
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

    state = optimizer.init(params)
    step = lb.make_step(loss, optimizer)
    begun = time.perf_counter()
    lowered: Any = jax.jit(step).lower(params, state, batch)
    traced = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - traced
    compiled_bare: Any = jax.jit(bare).lower(params, state, batch).compile()

    arguments = params, state, batch
    seconds(gradient, params, batch)
    seconds(compiled, *arguments)
    seconds(compiled_bare, *arguments)
    samples = [
        {
            "gradients_s": seconds(gradient, params, batch, calls=k + 1),
            "bare_s": seconds(compiled_bare, *arguments),
            "step_s": seconds(compiled, *arguments),
        }
        for _ in range(repetitions)
    ]
    of_gradients = (k + 1) * flops(jax.grad(loss), params, batch)
    memory = [c.memory_analysis() for c in (compiled, gradient)]
    extra = memory[0].temp_size_in_bytes - memory[1].temp_size_in_bytes
    return {
        "member": member,
        "k": k,
        "trace_s": traced - begun,
        "compile_s": compile_seconds,
        "flops_over_gradients": flops(step, *arguments) / of_gradients,
        "temporary_parameter_copies": extra / (4 * network.size),
        "samples": samples,
    }


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
    drawing.suptitle("Medians over members and repetitions", fontsize="small")
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
                lowered = jax.jit(jax.grad(network.loss)).lower(
                    network.params, network.batch
                )
                gradient = lowered.compile()
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
