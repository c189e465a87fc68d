"""A cell of the evidence: one row and seed of a question, resumed where it stopped."""

import dataclasses
from pathlib import Path
import shutil
from typing import Any

from benchmarks.accelerator import images
from benchmarks.accelerator.plan import file_name
from benchmarks.accelerator.records import Unfinished
from benchmarks.evidence import cells
from benchmarks.evidence.questions import QUESTIONS
from examples.trainer.command import Stopped


def measure(
    question: str,
    row: str,
    seed: int,
    folder: Path,
    data: Path,
    smaller: dict[str, Any] | None = None,
    **unused: Any,
) -> dict[str, Any]:
    """Trains to the end, or until SIGTERM.

    Args:
      question: name of the question.
      row: label of one of its rows.
      seed: of the training.
      folder: of all results, where the run has a folder of its own.
      data: folder of the packed images.
      smaller: settings that replace the question's, for a trial run.
      unused: what other jobs need.

    Returns:
      What `benchmarks.evidence` keeps of a cell.

    Raises:
      Unfinished: if it was stopped; its checkpoint is saved.
      Skip: if the images aren't there.
    """
    del unused
    dataset = images.load(data, folder)
    asked = QUESTIONS[question]
    config = dataclasses.replace(asked.config, **(smaller or {}))
    asked = asked._replace(config=config)
    of_row = next(one for one in asked.rows if one.label == row)
    cell = cells.Cell(of_row, "seeds", seed)
    examples = len(dataset.train.labels)
    place = folder / "runs" / f"{question}-{examples}-{file_name(row)}-{seed}"
    try:
        numbers = cells.measure(asked, cell, {}, dataset, place)
    except Stopped as stop:
        raise Unfinished(str(stop)) from stop
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    return {
        "question": question,
        "row": row,
        "seed": seed,
        "dataset": images.part_of(dataset),
        **numbers,
    }
