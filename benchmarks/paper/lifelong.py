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

from benchmarks import reports
from benchmarks.paper.experiment import Trainings
from benchmarks.paper.sizes import SIZES
from examples.lifelong import learning
from examples.lifelong import report
from examples.trainer import command
from examples.trainer.command import settings

# What `benchmarks.reports` renders with.
title, table, figure = report.title, report.table, report.figure


@settings
class Streams(Trainings):
    """Compare the methods of examples.lifelong on streams of tasks.

    Two commands:
      python -m benchmarks.paper.lifelong
      python -m benchmarks.paper.lifelong --size small
    """


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Learns, prints tables, and writes them, plots and all accuracies."""
    asked = command.parse(Streams, "benchmarks.paper.lifelong", arguments)
    for config in SIZES[asked.size].lifelong:
        dataset = config.dataset.removeprefix("folder:")
        name = f"lifelong_{asked.size}_{dataset}_{config.epochs}.json"
        config = dataclasses.replace(config, data_dir=asked.data_dir)
        results = learning.run(config, asked.runs / Path(name).stem)
        reports.save(asked.output / name, "lifelong", results)


if __name__ == "__main__":
    main()
