"""A folder of images: `folder:PATH`.

PATH/train holds a folder for each class, and so does PATH/test, or PATH/validation or
PATH/val if there is no test. JPEGs and PNGs in them are read, also in subfolders; other
files are ignored. Classes are numbered in the order of their names.
"""

import os
from pathlib import Path

import numpy as np

from examples.images.sources import decode
from examples.images.sources import digest
from examples.images.sources import listed
from examples.images.sources import Splits

ENDINGS = (".jpg", ".jpeg", ".png")
EVALUATED = ("test", "validation", "val")


class Files:
    """Color images, as a `Source`."""

    def __init__(self, paths: list[str], labels: np.ndarray):
        """Takes a path and a label for each of them."""
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image and its label."""
        path = self.paths[index]
        return decode(Path(path).read_bytes(), 3, path), int(self.labels[index])


def find(name: str, path: Path) -> Splits:
    """Lists the images of a folder.

    Raises:
      ValueError: if there are no two classes of them, or splits have other classes.
      OSError: if a folder isn't there.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    evaluated = next((name for name in EVALUATED if (path / name).is_dir()), None)
    if not (path / "train").is_dir() or evaluated is None:
        raise FileNotFoundError(
            f"{path} must hold the folders train and test (or validation, or val); "
            f"it holds {listed(sorted(os.listdir(path)))}"
        )
    classes, theirs = _classes(path / "train"), _classes(path / evaluated)
    if len(classes) < 2:
        raise ValueError(
            f"{path / 'train'} must hold a folder for each of two classes or more; "
            f"it holds {listed(classes)}"
        )
    if classes != theirs:
        raise ValueError(
            f"{path / 'train'} and {path / evaluated} must hold the same classes; only "
            f"one of them holds {listed(sorted({*classes} ^ {*theirs}))}"
        )
    train, test = (_files(path / split, classes) for split in ("train", evaluated))
    found = digest([*train.paths, *test.paths])
    return Splits(name, len(classes), None, train, test, found)


def _classes(folder: Path) -> list[str]:
    """The names of the folders in a folder, except hidden ones."""
    entries = os.scandir(folder)
    return sorted(
        entry.name
        for entry in entries
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _files(folder: Path, classes: list[str]) -> Files:
    """The images in the folders of the classes."""
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(
            os.path.join(where, file)
            for where, _, files in os.walk(folder / name, followlinks=True)
            for file in files
            if file.lower().endswith(ENDINGS) and not file.startswith(".")
        )
        if not found:
            raise ValueError(f"{folder / name} must hold JPEGs or PNGs; it has none")
        paths += found
        labels += [label] * len(found)
    return Files(paths, np.array(labels, np.int32))
