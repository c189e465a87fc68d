"""Datasets of labeled images, wherever they come from.

A module for each kind of them, such as `folders`, has a function `find`, which returns
the `Splits` of a dataset; `data` reads them into memory, or streams them.
"""

from collections.abc import Iterable
import hashlib
import io
from typing import Any
from typing import NamedTuple
from typing import Protocol

import numpy as np

# Pillow's modes of at most 8 bits per channel.
EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Source(Protocol):
    """A split of a dataset, which threads read in any order."""

    @property
    def labels(self) -> np.ndarray:
        """Labels of all examples, int32."""
        ...

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image, uint8 of shape (height, width, channels), and its label."""
        ...


class Splits(NamedTuple):
    """A dataset that isn't read yet.

    Attributes:
      name: as given to `data.find`.
      classes: number of classes.
      shape: of the images, (height, width, channels); None if they may differ.
      train: training examples.
      test: test examples.
      digest: of what tells its content, without reading the images: files or labels.
    """

    name: str
    classes: int
    shape: tuple[int, int, int] | None
    train: Source
    test: Source
    digest: str


class Arrays:
    """Examples in memory, as a `Source`."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        """Takes images of shape (n, height, width, channels), and integer labels."""
        self.images, self.labels = images, labels.astype(np.int32)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image and its label."""
        return self.images[index], int(self.labels[index])


class Selection:
    """Some examples of a source, with labels that may differ from its own."""

    def __init__(self, source: Source, indices: np.ndarray, labels: np.ndarray):
        """Takes the indices of the examples, and a label for each of them."""
        self.source, self.indices, self.labels = source, indices, labels

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image and the label given to it."""
        image, _ = self.source[int(self.indices[index])]
        return image, int(self.labels[index])


def decode(encoded: bytes, channels: int, what: str) -> np.ndarray:
    """The pixels of a JPEG or PNG, uint8 of shape (height, width, channels).

    Args:
      encoded: content of the file.
      channels: 1 for gray, 3 for colors, 4 for colors and their opacity.
      what: name of the image, for an error.

    Raises:
      OSError: if it isn't a whole image of at most 8 bits a channel.
    """
    from PIL import Image  # here, so that arrays don't need it
    from PIL import UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(encoded))
        if image.mode not in EIGHT_BITS:
            raise ValueError(f"its mode is {image.mode}, which has over 8 bits a pixel")
        pixels = np.asarray(image.convert(MODES[channels]))
    except Exception as error:  # whatever a damaged file makes Pillow raise
        unknown = isinstance(error, UnidentifiedImageError)  # names its buffer
        reason = "it is of no known format" if unknown else first_line(error)
        raise OSError(f"{what} can't be decoded ({reason})") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def digest(parts: Iterable[np.ndarray | str]) -> str:
    """SHA-256 of arrays and texts."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode() + b"\0")
        else:
            found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()


def check_labels(labels: np.ndarray, classes: int, what: str) -> None:
    """Checks labels, of which there should be at least one.

    Args:
      labels: integers.
      classes: number of classes.
      what: name of the labels, for an error.

    Raises:
      ValueError: if there are none, or one isn't a class.
    """
    if len(labels) == 0:
        raise ValueError(f"{what} must hold an example or more; it is empty")
    lowest, highest = labels.min(), labels.max()
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(
            f"{what} must hold labels from 0 to {classes - 1}; got {wrong}"
        )


def first_line(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    message, _, _ = str(error).partition("\n")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def listed(names: Any) -> str:
    """Names in a sentence; the first ten, if there are more."""
    names = [str(name) for name in names]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(names[:10]) or "nothing") + more
