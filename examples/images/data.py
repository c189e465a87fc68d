"""Image-classification datasets, by name: in memory, or streamed.

`load` reads a dataset of images of one size into memory; `find` returns a dataset that
is too large, or whose images may differ in size, for `streams.stream`. A name is

- "digits", scikit-learn's, which need no network;
- "folder:PATH", JPEGs and PNGs in a folder for each class;
- "PATH.npz", a file of arrays;
- "hf:PATH", what Hugging Face's `datasets` has saved;
- one of TFDS, with its config and version if needed ("eurosat/rgb").
"""

from collections.abc import Iterator
import dataclasses
import functools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from examples.images import arrays
from examples.images import folders
from examples.images import huggingface
from examples.images.sources import Arrays
from examples.images.sources import digest
from examples.images.sources import Selection
from examples.images.sources import Source
from examples.images.sources import Splits

READ_TOGETHER = 500  # examples; reading TFDS's one by one takes twice as long
MEMORY = 4e9  # bytes of training images; larger datasets are streamed


class Examples(NamedTuple):
    """Images and their labels.

    Attributes:
      images: uint8, of shape (n, height, width, channels).
      labels: int32, of shape (n,).
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    Attributes:
      name: as given to `load`.
      classes: number of classes.
      train: training examples.
      test: test examples; the validation split, if the test split has no labels.
      mean: of each channel of the training images, where 255 counts as 1.
      std: standard deviation of each channel, in the same unit.
    """

    name: str
    classes: int
    train: Examples
    test: Examples
    mean: np.ndarray
    std: np.ndarray

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all images and labels."""
        return digest([*self.train, *self.test])


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A dataset that is read as it is needed.

    Attributes:
      name: as given to `find`.
      classes: number of classes.
      train: training examples.
      test: test examples; the validation split, if the test split has no labels.
      digest: of the files or labels, or of the name with a version.
    """

    name: str
    classes: int
    train: Source
    test: Source
    digest: str


def find(name: str, data_dir: Path | None = None) -> Dataset | Streamed:
    """Loads a dataset if its images are of one size and together less than 4 GB.

    Args:
      name: of the dataset; see the module.
      data_dir: folder of datasets that TFDS has prepared, or is to prepare.

    Raises:
      ValueError: if there is no such dataset, or it isn't one of labeled images.
      OSError: if it can be neither read nor prepared, or the disk is full.
    """
    splits = _splits(name, data_dir)
    shape = splits.shape
    if shape is not None and len(splits.train) * math.prod(shape) < MEMORY:
        return _in_memory(splits)
    if shape is not None and shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} has images of {shape[-1]} channels, which can't be streamed, and "
            f"holds over {MEMORY / 1e9:.0f} GB of them"
        )
    return Streamed(name, splits.classes, splits.train, splits.test, splits.digest)


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Reads a dataset whose images are all of one size.

    Args:
      name: of the dataset; see the module.
      data_dir: folder of datasets that TFDS has prepared, or is to prepare.

    Raises:
      ValueError: if there is no such dataset, or it isn't one of labeled images, or
        these differ in size.
      OSError: if it can be neither read nor prepared, or the disk is full.
    """
    return _in_memory(_splits(name, data_dir))


def select(
    examples: Examples | Source, indices: np.ndarray, labels: np.ndarray
) -> Examples | Source:
    """Some of the examples, with labels for each of these."""
    if isinstance(examples, Examples):
        return Examples(examples.images[indices], labels)
    return Selection(examples, indices, labels)


def order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Indices of all examples as an epoch takes them: the same on every machine."""
    rng = np.random.default_rng((seed, epoch))
    return rng.permutation(examples).astype(np.int32)


def padded_batches(
    examples: Examples, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All examples in their order, as (images, labels, mask) of one shape.

    The last batch is filled with zeros, where the mask is False.
    """
    for start in range(0, len(examples.labels), batch_size):
        part = Examples(*(array[start : start + batch_size] for array in examples))
        yield pad(part, batch_size)


def pad(
    examples: Examples, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch filled with zeros up to its size, as (images, labels, mask)."""
    missing = batch_size - len(examples.labels)
    images, labels = (
        np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        for array in examples
    )
    return images, labels, np.arange(batch_size) < len(examples.labels)


def _splits(name: str, data_dir: Path | None) -> Splits:
    """A dataset of the kind that its name says."""
    kind, _, path = name.partition(":")
    if name == "digits":
        from examples.images import digits  # which need scikit-learn

        return digits.find()
    if kind == "folder":
        return folders.find(name, Path(path).expanduser())
    if kind == "hf":
        return huggingface.find(name, Path(path).expanduser())
    if name.endswith(".npz"):
        return arrays.find(Path(name).expanduser())
    from examples.images import builders  # which need TFDS

    return builders.find(name, data_dir)


def _in_memory(splits: Splits) -> Dataset:
    """A dataset, read whole."""
    train, test = (
        _read(source, f"{splits.name} {what}")
        for source, what in ((splits.train, "train"), (splits.test, "test"))
    )
    mean, std = _statistics(train.images)
    if not std.all():
        raise ValueError(
            f"the training images of {splits.name} must differ in all channels; the "
            f"standard deviations of their pixels are {std}"
        )
    return Dataset(splits.name, splits.classes, train, test, mean, std)


def _read(source: Source, what: str) -> Examples:
    """A split as arrays.

    Neither threads nor processes: with two threads it took longer, and two processes,
    which must not be forked from one that runs JAX, saved a third of the time, once.
    """
    if isinstance(source, Arrays):
        return Examples(source.images, source.labels)
    first, _ = source[0]
    images = np.empty((len(source), *first.shape), np.uint8)
    labels = np.empty(len(source), np.int32)

    def one_by_one(part):
        return map(source.__getitem__, part)

    read_together = getattr(source, "__getitems__", one_by_one)
    progress = tqdm(
        total=len(source), desc=f"Reading {what}", unit=" images", unit_scale=True
    )
    with progress:
        for start in range(0, len(source), READ_TOGETHER):
            part = range(start, min(start + READ_TOGETHER, len(source)))
            for i, (image, labels[i]) in zip(part, read_together(part), strict=True):
                if image.shape != first.shape:
                    raise ValueError(
                        f"the images of {what} must be of one size to be loaded; got "
                        f"{first.shape} and {image.shape}"
                    )
                images[i] = image
            progress.update(len(part))
    return Examples(images, labels)


def _statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, where 255 counts as 1."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), READ_TOGETHER):  # `bincount` makes int64 of them
        for channel, count in enumerate(counts):
            part = images[start : start + READ_TOGETHER, ..., channel]
            count += np.bincount(part.ravel(), minlength=256)
    levels = np.arange(256) / 255
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
    return mean.astype(np.float32), std.astype(np.float32)
