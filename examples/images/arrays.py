"""Arrays of images in a file: `PATH.npz`, as Keras publishes MNIST.

The file holds `x_train` and `x_test`, uint8 of shape (n, height, width) or (n, height,
width, channels), and `y_train` and `y_test`, integers of shape (n,): 0 is the first
class. Nothing in it is unpickled.
"""

from pathlib import Path

import numpy as np

from examples.images.sources import Arrays
from examples.images.sources import check_labels
from examples.images.sources import digest
from examples.images.sources import first_line
from examples.images.sources import listed
from examples.images.sources import Splits

KEYS = ("x_train", "y_train", "x_test", "y_test")


def find(path: Path) -> Splits:
    """Reads a file of arrays.

    Raises:
      ValueError: if it doesn't hold what it should.
      OSError: if it can't be read.
    """
    x_train, y_train, x_test, y_test = _read(path)
    train = _examples(x_train, y_train, path, "train")
    test = _examples(x_test, y_test, path, "test")
    shape, theirs = train.images.shape[1:], test.images.shape[1:]
    if shape != theirs:
        raise ValueError(
            f"{path}: x_train and x_test must hold images of one shape; "
            f"got {shape} and {theirs}"
        )
    classes = int(train.labels.max()) + 1
    # So that a label of a million doesn't make a million classes.
    absent = np.setdiff1d(np.arange(min(classes, len(train) + 1)), train.labels)
    if len(absent):
        raise ValueError(
            f"{path}: y_train must hold all labels from 0 to {classes - 1}; "
            f"{absent[0]} is absent"
        )
    if classes < 2:
        raise ValueError(f"{path}: y_train must hold two classes or more; got one")
    check_labels(test.labels, classes, f"{path}: y_test")
    found = digest([train.labels, test.labels])
    return Splits(str(path), classes, shape, train, test, found)


def _read(path: Path) -> list[np.ndarray]:
    """The arrays of a file, in the order of KEYS."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            held = list(file)
            arrays = [file[key] for key in KEYS if key in held]
    except Exception as error:  # whatever a damaged file makes NumPy raise
        raise OSError(
            f"{path} can't be read as an npz file of plain arrays ({first_line(error)})"
        ) from error
    if len(arrays) < len(KEYS):
        raise ValueError(
            f"{path} must hold {', '.join(KEYS)}; it holds {listed(sorted(held))}"
        )
    return arrays


def _examples(images: np.ndarray, labels: np.ndarray, path: Path, split: str) -> Arrays:
    """The examples of a split, whose arrays are checked."""
    x, y = f"{path}: x_{split}", f"{path}: y_{split}"
    if images.dtype != np.uint8:
        raise ValueError(f"{x} must be uint8, from 0 to 255; got {images.dtype}")
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise ValueError(
            f"{x} must have the shape (n, height, width) or (n, height, width, "
            f"channels); got {images.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{y} must be integers; got {labels.dtype}")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{y} must hold a label for each image, of shape {images.shape[:1]}; "
            f"got {labels.shape}"
        )
    # Before they become int32, and before the number of classes is known.
    check_labels(labels, 2**31 - 1, y)
    return Arrays(images if images.ndim == 4 else images[..., None], labels)
