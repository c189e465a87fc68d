"""Whether input starves the device: the trainer's images per second over the step's.

    python -m benchmarks.speed.train_throughput
    python -m benchmarks.speed.train_throughput --models wrn-28-2 --batch-size 128

What the trainer, `examples.images`, does with images in memory, from their random order
and augmentation to the loss that is read for the log, is timed against the bare step,
made by `make_step`, which repeats one prepared batch. Both are timed in
each repetition, after a warm-up, and compared within it.
"""

import dataclasses
import statistics
from typing import Annotated
from typing import Any

import jax
from matplotlib.figure import Figure
from pydantic import PositiveInt

from benchmarks import reports
from benchmarks.speed.flags import Precisions
from benchmarks.speed.precisions import here
from benchmarks.speed.precisions import PRECISIONS
from benchmarks.speed.throughput import measure
from examples.images import data
from examples.images.config import Config
from examples.images.models import MODELS
from examples.trainer import command
from examples.trainer.command import among
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.command import Several
from examples.trainer.config import Ascents
from examples.trainer.optimizers import MEMBERS
from examples.trainer.paths import DataFolder


@settings
class Throughput(Settings):
    """Compare images per second of the trainer with those of the bare step.

    Two commands:
      python -m benchmarks.speed.train_throughput
      python -m benchmarks.speed.train_throughput --dataset digits --models convnet

    Attributes:
      dataset: digits, or a dataset of TFDS that fits the memory.
      data_dir: folder of datasets that TFDS has prepared.
      models: networks, names in examples/images/models.py.
      optimizer: a name of this library, or "base" for SGD alone.
      k: number of ascent steps; the optimizer's default if not given.
      batch_size: images in a step.
      precisions: precisions of the computation; all that the device has if not given.
      steps: number of steps that are timed together, at most an epoch.
      repetitions: times that each row is timed.
      output: where to write every sample, as JSON, with the table and the picture
        next to it; replaced if it exists. By default
        benchmarks/results/speed/train_throughput_DEVICE.json.
    """

    dataset: str = "cifar10"
    data_dir: DataFolder | None = None
    models: Several[Annotated[str, among(MODELS)]] = ("wrn-16-2", "vit-micro")
    optimizer: Annotated[str, among(("base", *MEMBERS))] = "lookbehind_sam"
    k: Ascents | None = None
    batch_size: PositiveInt = 64
    precisions: Precisions = dataclasses.field(default_factory=here)
    steps: PositiveInt = 20
    repetitions: PositiveInt = 7
    output: reports.Output | None = None


def ratios(row: dict[str, Any]) -> list[float]:
    """The trainer's images per second over the bare step's, in each repetition."""
    return [sample["step_s"] / sample["trainer_s"] for sample in row["samples"]]


def title(results: dict[str, Any]) -> str:
    """What was measured, where, and what a number is."""
    return (
        "The trainer beside its bare step\n"
        f"{results['dataset']}, {results['optimizer']}, k = {results['k']}, batches of "
        f"{results['batch_size']}, {results['device']}; medians, with the range over "
        "repetitions"
    )


def table(results: dict[str, Any]) -> str:
    """A row for each network: medians, and the range of the ratio."""
    head = ["model", "precision", "trainer (images/s)", "trainer (gradients/s)"]
    head += ["bare step (images/s)", "trainer over bare step"]
    rows = []
    for row in results["rows"]:
        trainer = statistics.median(sample["trainer_s"] for sample in row["samples"])
        step = statistics.median(sample["step_s"] for sample in row["samples"])
        found = ratios(row)
        rows.append(
            [
                row["model"],
                row["precision"],
                f"{row['images'] / trainer:,.0f}",
                f"{row['gradients'] / trainer:,.1f}",
                f"{row['images'] / step:,.0f}",
                f"{statistics.median(found):.3f} ({min(found):.3f}–{max(found):.3f})",
            ]
        )
    return reports.markdown(head, rows)


def figure(results: dict[str, Any]) -> Any:
    """A point for each repetition, a bar for their median."""
    names = [f"{row['model']}, {row['precision']}" for row in results["rows"]]
    drawing = Figure(figsize=(1.5 + 1.3 * len(names), 3.6), layout="constrained")
    ax: Any = drawing.subplots()
    for place, row in enumerate(results["rows"]):
        found = ratios(row)
        ax.bar(place, statistics.median(found), color="lightsteelblue")
        ax.plot([place] * len(found), found, "k.", markersize=4)
    ax.axhline(1, color="gray", linewidth=0.8)
    ax.set_xticks(range(len(names)), names, rotation=20)
    ax.set_ylabel("trainer over bare step")
    return drawing


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Measures and reports."""
    program = "benchmarks.speed.train_throughput"
    benchmark = command.parse(Throughput, program, arguments)
    output = benchmark.output or reports.default("train_throughput")
    dataset = data.load(benchmark.dataset, benchmark.data_dir)
    rows = []
    for model in benchmark.models:
        for precision in benchmark.precisions:
            with jax.default_matmul_precision(PRECISIONS[precision].multiplication):
                config = Config(
                    dataset=benchmark.dataset,
                    model=model,
                    optimizer=benchmark.optimizer,
                    k=benchmark.k,
                    batch_size=benchmark.batch_size,
                    precision="bf16" if precision == "bf16" else "fp32",
                    epochs=1000,
                )
                row = measure(config, dataset, benchmark.steps, benchmark.repetitions)
                rows.append({"model": model, "precision": precision, **row})
    asked = {
        name: value
        for name, value in dataclasses.asdict(benchmark).items()
        if name not in ("data_dir", "models", "precisions", "output")
    }
    reports.save(output, "train_throughput", {**asked, "rows": rows})


if __name__ == "__main__":
    main()
