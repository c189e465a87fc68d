"""How a step grows: with its parameters, its examples, and its devices.

    python -m benchmarks.speed.scaling parameters
    python -m benchmarks.speed.scaling examples
    python -m benchmarks.speed.scaling devices

A step of `lookbehind_sam` over SGD with momentum, of decoder transformers. All is
compiled from shapes alone, and XLA says what memory it plans: for a step, parameters
and the optimizer's state go in and are donated; for a gradient, parameters go in and
the gradient comes out. What fits into memory is also run, and timed against k + 1
jitted gradients. Traffic between devices is read from the compiled program; one CPU
stands in for eight devices, and isn't timed then.
"""

from collections.abc import Callable
import os
import resource
import statistics
from typing import Any
from typing import Literal

from flax import linen as nn
import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import optax
from pydantic import NonNegativeInt
from tqdm import tqdm
import tyro

from benchmarks import reports
from benchmarks.speed import networks
from benchmarks.speed import programs
from benchmarks.speed.steps import seconds
from examples.images.models import Transformer
from examples.trainer import command
from examples.trainer import meshes
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.config import Ascents
import lookbehind_optax as lb

BASE = optax.sgd(0.1, momentum=0.9)
SHORT: Any = {"vocabulary": 256, "length": 128}
DECODERS = {
    "1e5": Transformer(width=52, heads=2, layers=2, **SHORT),
    "1e6": Transformer(width=136, heads=4, layers=4, **SHORT),
    "1e7": Transformer(width=360, heads=6, layers=6, **SHORT),
    "1e8": Transformer(width=1016, heads=8, layers=8, **SHORT),
    "3e8": Transformer(width=1760, heads=16, layers=8, **SHORT),
    "1e9": Transformer(width=2624, heads=16, layers=12, **SHORT),
}
EXAMPLES = (1, 4, 16, 64)
DEVICES = (1, 2, 4, 8)


@settings
class Scaling(Settings):
    """Measure how memory, time and traffic of a step grow.

    Two commands:
      python -m benchmarks.speed.scaling parameters
      python -m benchmarks.speed.scaling devices --k 5

    Attributes:
      over: what is varied. Parameters from 1e5 to 1e9, at one sequence; examples from 1
        to 64, at 1e6 parameters; devices from 1 to 8, at 1e7 parameters and two
        sequences for each.
      k: number of ascent steps.
      repetitions: times that each row is timed; with 0, only what XLA plans is
        compared.
      output: where to write every number, as JSON, with the table and the picture
        next to it; replaced if it exists. By default
        benchmarks/results/speed/scaling_OVER_DEVICE.json.
    """

    over: tyro.conf.Positional[Literal["parameters", "examples", "devices"]]
    k: Ascents = 2
    repetitions: NonNegativeInt = 5
    output: reports.Output | None = None


def room() -> int:
    """Bytes of memory that are free."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory(compiled: Any) -> int:
    """Bytes on a device, by XLA's plan: what goes in, comes out, and is between."""
    stats = compiled.memory_analysis()
    made = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return stats.argument_size_in_bytes + made + stats.temp_size_in_bytes


def by_example(layout: meshes.Layout) -> Callable[..., Any]:
    """Keeps what the layers of a network make split by example, as the batch is.

    Without it, JAX may gather the batch instead of split weights.
    """

    def intercept(layer, args, kwargs, context):
        made = layer(*args, **kwargs)
        if isinstance(made, jax.Array) and made.ndim > 2:  # not the places' embedding
            return jax.lax.with_sharding_constraint(made, layout.batch())
        return made

    return intercept


def spent(of: str, function: Any, *arguments: Any, calls: int = 1) -> dict[str, float]:
    """Wall time, and the system's CPU time, which includes memory allocation."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_stime
    wall = seconds(function, *arguments, calls=calls)
    system = resource.getrusage(resource.RUSAGE_SELF).ru_stime - before
    return {f"{of}_s": wall, f"{of}_system_s": system}


def measure(
    decoder: Transformer,
    examples: int,
    benchmark: Scaling,
    layout: meshes.Layout | None = None,
) -> dict[str, Any]:
    """A row: a decoder's step and its gradient, split by a layout if there is one.

    Rows with a layout have what crosses between devices, and no time on CPUs.
    """
    optimizer = lb.lookbehind_sam(BASE, k=benchmark.k, alpha=1 / max(1, benchmark.k))
    whole_loss = networks.next_token_loss(decoder)
    placed = layout or meshes.layout(())

    def loss(params, tokens):
        if layout is None:
            return whole_loss(params, tokens)
        with nn.intercept_methods(by_example(layout)):
            return whole_loss(params, tokens)

    def start():
        tokens = jnp.zeros((1, decoder.length), jnp.int32)
        params = decoder.init(jax.random.key(0), tokens)
        return params, optimizer.init(params)

    shapes = placed.shapes(start)
    tokens = jax.ShapeDtypeStruct(
        (examples, decoder.length), jnp.int32, sharding=placed.batch()
    )
    step = jax.jit(lb.make_step(loss, optimizer), donate_argnums=(0, 1))
    compiled = step.lower(*shapes, tokens).compile()
    gradient = jax.jit(jax.grad(loss)).lower(shapes[0], tokens).compile()
    row = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes[0])),
        "examples": examples,
        "step_bytes": memory(compiled),
        "gradient_bytes": memory(gradient),
        "samples": [],
    }
    if layout is not None:
        crossing = programs.traffic(compiled)
        row |= {
            "devices": layout.devices,
            "split": layout.mesh.shape["fsdp"] > 1,
            "traffic_bytes": crossing.bytes,
            "traffic_scalars": crossing.scalars,
        }
    virtual = layout is not None and jax.default_backend() == "cpu"
    # Beside a step, the parameters that the gradients are taken at.
    needed = row["step_bytes"] + 4 * row["parameters"] // placed.devices
    if virtual or needed > 0.9 * room():
        return row

    places = jax.tree.map(lambda shape: shape.sharding, shapes)
    held = jax.jit(start, out_shardings=places)()
    params = jax.tree.map(jnp.copy, held[0])
    drawn = np.random.default_rng(0).integers(decoder.vocabulary, size=tokens.shape)
    batch = placed.put(drawn.astype(np.int32), placed.batch())

    def run():
        nonlocal held
        held = compiled(*held, batch)[:2]
        return held

    seconds(run)
    seconds(gradient, params, batch)
    row["samples"] = [
        spent("gradients", gradient, params, batch, calls=benchmark.k + 1)
        | spent("step", run)
        for _ in range(benchmark.repetitions)
    ]
    return row


def copies(row: dict[str, Any], bytes_: int) -> float:
    """Bytes in copies of all parameters."""
    return bytes_ / (4 * row["parameters"])


def ratios(row: dict[str, Any]) -> list[float]:
    """The step's time over that of its gradients, in each repetition."""
    return [sample["step_s"] / sample["gradients_s"] for sample in row["samples"]]


def title(results: dict[str, Any]) -> str:
    """What was measured, where, and what a number is."""
    return (
        f"How a Lookbehind step grows with its {results['over']}\n"
        f"decoder, k = {results['k']}, {results['device']}; copies of all parameters; "
        "medians, with the range over repetitions"
    )


def table(results: dict[str, Any]) -> str:
    """A row for each size: memory in copies of all parameters, and medians of time."""
    over_devices = results["over"] == "devices"
    head = ["parameters", "sequences"]
    head += ["devices", "parameters are", "traffic (copies)"] if over_devices else []
    head += ["memory of a step (GB)", "in copies", "of a gradient (copies)"]
    timed = any(row["samples"] for row in results["rows"])
    head += ["step (ms)", "over k + 1 gradients"] if timed else []
    head += ["the system's CPU time (ms)", "in k + 1 gradients"] if timed else []
    rows = []
    for row in results["rows"]:
        line = [f"{row['parameters']:,}", str(row["examples"])]
        if over_devices:
            kinds = [
                f"{kind} {copies(row, bytes_):.2f}"
                for kind, bytes_ in row["traffic_bytes"].items()
            ]
            line += [str(row["devices"]), "split" if row["split"] else "copied"]
            line += [", ".join(kinds) or "none"]
        line += [
            f"{row['step_bytes'] / 1e9:.3g}",
            f"{copies(row, row['step_bytes']):.2f}",
            f"{copies(row, row['gradient_bytes']):.2f}",
        ]
        found = ratios(row)
        if found:
            step, *system = (
                f"{1000 * statistics.median(s[of] for s in row['samples']):.1f}"
                for of in ("step_s", "step_system_s", "gradients_system_s")
            )
            spread = f"{min(found):.3f}–{max(found):.3f}"
            line += [step, f"{statistics.median(found):.3f} ({spread})", *system]
        elif timed:
            line += ["not run"] * 4
        rows.append(line)
    return reports.markdown(head, rows)


def figure(results: dict[str, Any]) -> Any:
    """Memory, and traffic or time, over what was varied."""
    over = results["over"]
    drawing = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = drawing.subplots(1, 2)
    rows = results["rows"]
    if over == "devices":
        ways = {
            way: [row for row in rows if row["split"] == split or row["devices"] == 1]
            for way, split in {"copied": False, "split": True}.items()
        }
        for way, found in ways.items():
            devices = [row["devices"] for row in found]
            step = [copies(row, row["step_bytes"]) for row in found]
            crossing = [copies(r, sum(r["traffic_bytes"].values())) for r in found]
            left.plot(devices, step, marker="o", label=f"parameters {way}")
            right.plot(devices, crossing, marker="o", label=f"parameters {way}")
        left.set_ylabel("memory of a step on a device (copies)")
        right.set_ylabel("traffic of a step (copies)")
        right.legend(fontsize="small", frameon=False)
    else:
        x = [row[over] for row in rows]
        for what in ("step", "gradient"):
            found = [copies(row, row[f"{what}_bytes"]) for row in rows]
            left.plot(x, found, marker="o", label=f"of a {what}")
        left.set_ylabel("memory (copies of the parameters)")
        timed = [row for row in rows if row["samples"]]
        middle = [statistics.median(ratios(row)) for row in timed]
        right.plot([row[over] for row in timed], middle, marker="o")
        for row in timed:
            right.vlines(row[over], min(ratios(row)), max(ratios(row)), alpha=0.4)
        right.axhline(1, color="gray", linewidth=0.8)
        right.set_ylabel("step over k + 1 gradients")
    numbers = sorted({row[over] for row in rows})
    for ax in (left, right):
        ax.set_xscale("log")
        if over != "parameters":  # which are not round
            ax.set_xticks(numbers, labels=[str(number) for number in numbers])
            ax.minorticks_off()
        ax.set_xlabel("sequences" if over == "examples" else over)
        ax.set_ylim(bottom=0)
    right.set_xlim(left.get_xlim())
    left.legend(fontsize="small", frameon=False)
    return drawing


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    benchmark = command.parse(Scaling, "benchmarks.speed.scaling", arguments)
    if benchmark.over == "devices":
        jax.config.update("jax_num_cpu_devices", max(DEVICES))
    output = benchmark.output or reports.default(f"scaling_{benchmark.over}")
    grid: list[tuple[str, int, tuple[int, str] | None]]
    if benchmark.over == "parameters":
        grid = [(name, 1, None) for name in DECODERS]
    elif benchmark.over == "examples":
        grid = [("1e6", examples, None) for examples in EXAMPLES]
    else:
        grid = [
            ("1e7", 2 * devices, (devices, axis))
            for axis in meshes.AXES
            for devices in DEVICES
            if devices <= jax.device_count() and (devices > 1 or axis == "data")
        ]
    rows = []
    for name, examples, mesh in tqdm(grid, unit="row"):
        layout = None if mesh is None else on(*mesh)
        rows.append(measure(DECODERS[name], examples, benchmark, layout))
        jax.clear_caches()
    found = {"over": benchmark.over, "k": benchmark.k, "rows": rows}
    reports.save(output, "scaling", found)


def on(devices: int, axis: str) -> meshes.Layout:
    """A layout of the first devices along one axis."""
    shape = [devices if name == axis else 1 for name in meshes.AXES]
    grid = np.array(jax.devices()[:devices]).reshape(shape)
    return meshes.Layout(jax.sharding.Mesh(grid, meshes.AXES))


if __name__ == "__main__":
    main()
