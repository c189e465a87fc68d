"""Whether Lookbehind learns more and forgets less in a stream of tasks (Table 2).

    python -m benchmarks.lifelong --size small

It is `examples.lifelong` at three sizes: "smoke" shows in seconds that it runs, "small"
compares all methods on Split-Fashion-MNIST in minutes on a CPU, and "paper" on
Split-CIFAR100, with the network and the numbers of Look-ahead MAML, on an accelerator.
None of the numbers was chosen by results.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from examples import lifelong
from examples.lifelong import Lifelong

SIZES = {
    "smoke": Lifelong(
        images_per_task=40,
        inner_steps=2,
        methods=("sgd", "lookbehind_sam+replay", "cmaml_lookahead+replay"),
        seeds=2,
    ),
    "small": Lifelong(dataset="fashion_mnist", images_per_task=1000, seeds=5),
    "paper": Lifelong(
        dataset="cifar100", classes_per_task=5, model="conv3", epochs=10, seeds=5
    ),
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compare the methods of examples/lifelong.py, at one of three sizes.

    Attributes:
      size: smoke takes seconds, small minutes on two CPU cores, paper hours on a GPU.
      data_dir: folder of datasets that TFDS has prepared, or is to prepare.
      output: folder for lifelong_SIZE.json, .md and .png; they are replaced.
    """

    size: Literal["smoke", "small", "paper"] = "smoke"
    data_dir: Path | None = None
    output: Path = Path("benchmarks/results")


def main() -> None:
    """Learns, prints a table, and writes it, the plot and all accuracies."""
    benchmark = tyro.cli(Benchmark, prog="python -m benchmarks.lifelong")
    config = dataclasses.replace(SIZES[benchmark.size], data_dir=benchmark.data_dir)
    results = lifelong.run(config)
    lifelong.save(results, benchmark.output, f"lifelong_{benchmark.size}")


if __name__ == "__main__":
    main()
