"""What the experiments of the paper share: their flags, their data, their trainings."""

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks.paper.sizes import Name
from examples.images import data
from examples.images.config import Config
from examples.images.training import Training
from examples.trainer import runs
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.paths import DataFolder
from examples.trainer.paths import OutputFolder


@settings
class Experiment(Settings):
    """Settings of every experiment.

    Attributes:
      size: smoke takes a minute on two CPU cores, small up to an hour there, on real
        data, and paper days on a GPU.
      data_dir: folder of datasets that TFDS has prepared; where they are downloaded to
        if they aren't there. TFDS's own by default.
      output: folder for the results, as JSON, Markdown, SVG and PNG; they are replaced.
    """

    size: Name = "smoke"
    data_dir: DataFolder | None = None
    output: OutputFolder = Path("benchmarks/results/paper")


@settings
class Trainings(Experiment):
    """Settings of every experiment that keeps its training runs.

    Attributes:
      runs: folder of all training runs. Finished ones aren't repeated, and interrupted
        ones are resumed.
    """

    runs: OutputFolder = Path("runs/paper")


def load(
    name: str,
    data_dir: Path | None,
    train: int | None = None,
    test: int | None = None,
) -> data.Dataset:
    """A dataset, or the first training and test examples of it."""
    whole = data.load(name, data_dir)
    return dataclasses.replace(
        whole,
        train=data.Examples(*(array[:train] for array in whole.train)),
        test=data.Examples(*(array[:test] for array in whole.test)),
    )


def train(
    config: Config, dataset: data.Dataset, folder: Path
) -> tuple[Training, dict[str, Any]]:
    """Trains in a folder, or reads the finished run; the training and its summary."""
    config = dataclasses.replace(config, output=folder)
    training = Training(config, dataset)
    return training, runs.run(config, training, folder)
