"""Whether Lookbehind learns more and forgets less in a stream of tasks (Table 2).

    python -m benchmarks.paper.lifelong --size small

It is `examples.lifelong` at three sizes: "smoke" shows in seconds that it runs, "small"
compares all methods on Split-Fashion-MNIST in minutes on a CPU, and "paper" on
Split-CIFAR100 and Split-TinyImageNet, with the networks and the numbers of Look-ahead
MAML's code, on an accelerator; both in a single pass and in several epochs. None of the
numbers was chosen by results.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from benchmarks import checks
from benchmarks import reports
from examples.lifelong import learning
from examples.lifelong import report
from examples.lifelong.config import Lifelong

# What `benchmarks.reports` renders with.
table, figure = report.table, report.figure

SMOKE = Lifelong(
    images_per_task=40,
    inner_steps=2,
    methods=("sgd", "lookbehind_sam+replay", "cmaml_lookahead+replay"),
    seeds=2,
)
SMALL = Lifelong(dataset="fashion_mnist", images_per_task=1000, seeds=5)
CIFAR = Lifelong(dataset="cifar100", classes_per_task=5, model="conv3", seeds=5)
TINY = Lifelong(
    dataset="folder:tiny-imagenet-200",  # as docs/lifelong.md makes it
    classes_per_task=5,
    model="conv4",
    memory=400,
    seeds=5,
)
SIZES = {
    "smoke": (SMOKE,),
    "small": (SMALL, dataclasses.replace(SMALL, images_per_task=500, epochs=5)),
    "paper": tuple(
        dataclasses.replace(stream, epochs=epochs)
        for stream in (CIFAR, TINY)
        for epochs in (1, 10)
    ),
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare the methods of `examples.lifelong`, at one of three sizes.

    Attributes:
      size: smoke takes seconds, small minutes on two CPU cores, paper hours on a GPU.
      data_dir: folder of datasets that TFDS has prepared, or is to prepare.
      output: folder for lifelong_SIZE_DATASET_EPOCHS.json, .md and .png; they are
        replaced.
    """

    size: Literal["smoke", "small", "paper"] = "smoke"
    data_dir: Path | None = None
    output: Path = Path("benchmarks/results/paper")


def main() -> None:
    """Learns, prints tables, and writes them, plots and all accuracies."""
    benchmark = tyro.cli(Benchmark, prog="python -m benchmarks.paper.lifelong")
    for config in SIZES[benchmark.size]:
        name = f"lifelong_{benchmark.size}_{config.dataset}_{config.epochs}.json"
        output = checks.writable(benchmark.output / name)
        results = learning.run(dataclasses.replace(config, data_dir=benchmark.data_dir))
        reports.save(output, "lifelong", results)


if __name__ == "__main__":
    main()
