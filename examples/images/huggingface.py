"""A dataset that Hugging Face's `datasets` has saved with `save_to_disk`: `hf:PATH`.

It is a DatasetDict with the splits "train" and "test" (or "validation", if there is no
test split, or it has no labels), with one column of images and one of class labels.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from examples.images.sources import check_labels
from examples.images.sources import decode
from examples.images.sources import digest
from examples.images.sources import first_line
from examples.images.sources import listed
from examples.images.sources import Splits


class Rows:
    """Color images in the rows of a table, as a `Source`."""

    def __init__(self, table: Any, image: str, label: str, what: str):
        """Takes a `datasets.Dataset`, the names of two columns, and one for errors."""
        from datasets import Image

        self.table = table.cast_column(image, Image(decode=False))
        self.image, self.what = image, what
        labels = table.with_format("numpy")[label][:]
        # A missing label is NaN.
        self.labels = np.nan_to_num(labels, nan=-1).astype(np.int32)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image and its label."""
        what = f"image {index} of {self.what}"
        file = self.table[index][self.image]
        if file is None:
            raise OSError(f"{what} is absent")
        encoded = file["bytes"]
        if encoded is None:
            encoded = Path(file["path"]).read_bytes()
        return decode(encoded, 3, what), int(self.labels[index])


def find(name: str, path: Path) -> Splits:
    """Opens a saved dataset.

    Raises:
      ValueError: if `datasets` isn't installed, or the dataset isn't one of labeled
        images.
      OSError: if it can't be read.
    """
    tables = _load(path)
    train = tables.get("train")
    evaluated = [split for split in ("test", "validation") if split in tables]
    if train is None or not evaluated:
        raise ValueError(
            f"{path} must have the splits train and test (or validation); "
            f"it has {listed(tables)}"
        )
    image, label = _column(train, "Image", path), _column(train, "ClassLabel", path)
    classes = train.features[label].num_classes
    if classes < 2:
        raise ValueError(
            f"{path}: {label} must have two classes or more; got {classes}"
        )
    rows = {}
    for split in ("train", *evaluated):
        if tables[split].features != train.features:
            raise ValueError(f"{path}: train and {split} must have the same features")
        rows[split] = Rows(tables[split], image, label, f"{path} {split}")
    # The test labels may be hidden, as in many competitions.
    labeled = [split for split in evaluated if np.any(rows[split].labels >= 0)]
    test = (labeled or evaluated)[0]
    for split in ("train", test):
        check_labels(rows[split].labels, classes, f"{path}: {label} of {split}")
    found = digest([rows["train"].labels, rows[test].labels])
    return Splits(name, classes, None, rows["train"], rows[test], found)


def _load(path: Path) -> Any:
    """The tables of a saved dataset, by the names of its splits."""
    if importlib.util.find_spec("datasets") is None:
        raise ValueError("hf:PATH takes Hugging Face's datasets: pip install datasets")
    from datasets import DatasetDict
    from datasets import load_from_disk

    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    try:
        tables = load_from_disk(str(path))
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise OSError(
            f"{path} can't be read as a dataset of Hugging Face, none of whose splits "
            f"is empty ({first_line(error)})"
        ) from error
    if not isinstance(tables, DatasetDict):
        raise ValueError(
            f"{path} must be a DatasetDict, of train and test; got a Dataset"
        )
    return tables


def _column(table: Any, kind: str, path: Path) -> str:
    """The name of the one column of a kind."""
    found = [name for name, x in table.features.items() if type(x).__name__ == kind]
    if len(found) != 1:
        raise ValueError(
            f"{path} must have one column of {kind}s; it has {listed(found)} among "
            f"{listed(table.features)}"
        )
    return found[0]
