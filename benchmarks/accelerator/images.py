"""CIFAR-10 for the jobs that train: unpacked once, then fast to read."""

import os
from pathlib import Path

import numpy as np

from benchmarks.accelerator import cifar
from benchmarks.accelerator.records import Skip
from examples.images import data


def load(packed: Path, folder: Path) -> data.Dataset:
    """Loads the parts of CIFAR-10 that are there.

    Args:
      packed: folder of its parts.
      folder: of all results, where the arrays are kept for the next job.

    Raises:
      Skip: if there is no part of it.
    """
    parts = len(list(packed.glob(cifar.PATTERN)))
    arrays = folder / f"cifar10-{parts}-of-{cifar.PARTS}.npz"
    if not arrays.exists():
        try:
            found, _ = cifar.unpack(packed)
        except FileNotFoundError as error:
            raise Skip(str(error)) from error
        unfinished = arrays.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez(file, **found._asdict())
        os.replace(unfinished, arrays)
    return data.load(str(arrays))


def part_of(dataset: data.Dataset) -> str:
    """Which images these are, in a word."""
    return f"{len(dataset.train.labels):,} + {len(dataset.test.labels):,}"
