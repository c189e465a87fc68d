"""Cells that train an image classifier."""

import dataclasses
import json
from pathlib import Path
import shutil
from typing import Any

from examples.images import data
from examples.images.config import Config
from examples.images.training import Training
from examples.trainer import runs

VALIDATION = 0.1
KEPT = ("accuracy", "loss", "perturbed_loss", "flipped_accuracy")


def configure(
    config: Config, options: dict[str, Any], folder: Path, trial: bool
) -> Config:
    """The settings of a cell: a trial holds out a tenth of the training images."""
    validation = VALIDATION if trial else 0.0
    return dataclasses.replace(config, **options, validation=validation, output=folder)


def run(
    config: Config,
    options: dict[str, Any],
    dataset: data.Dataset,
    folder: Path,
    trial: bool,
) -> dict[str, Any]:
    """Trains, or reads the finished run from the folder.

    Args:
      config: of all cells of the question.
      options: what is special in this one.
      dataset: to train and to be judged on.
      folder: of the run, which is resumed if it was interrupted.
      trial: whether to evaluate on the validation images, not the test images.

    Returns:
      The numbers that are kept.

    Raises:
      FloatingPointError: if the training diverges.
    """
    config = configure(config, options, folder, trial)
    summary = runs.run(config, Training(config, dataset), folder)
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    judge = "valid" if trial else "test"
    names = (f"{judge}_accuracy", f"{judge}_loss", f"{judge}_ece", *KEPT)
    return {
        **{name: round(last[name], 6) for name in names if name in last},
        f"best_{judge}_accuracy": summary[f"best_{judge}_accuracy"],
        "gradients": summary["gradient_evaluations"],
        "seconds": summary["wall_seconds"],
    }
