"""Image-classification datasets: every one of them through TFDS, without TensorFlow.

`load` reads a dataset of small images into memory; `streams.stream` yields batches of
one that is too large, or whose images differ in size; `find` says which it is. Names
are those of TFDS, with its configs and versions if need be ("eurosat/rgb"), and
"tiny_imagenet" and "digits", of which the last needs no network.

Decoding 60,000 PNGs takes some ten seconds. So `load` keeps the arrays, beside the
records that they come from: `decoded.npz` in the dataset's folder, such as
~/tensorflow_datasets/cifar10/3.0.2. It can be deleted at any time.
"""

from collections.abc import Iterator
import dataclasses
import errno
import math
from pathlib import Path
import tempfile
from typing import Any
from typing import NamedTuple
import warnings
import zipfile

import numpy as np
from tqdm import tqdm

from examples.images import builders

READ_TOGETHER = 500  # records; one by one takes twice as long
MEMORY = 4e9  # bytes of training images that are streamed if they are more


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


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A dataset that is read as it is needed; what `stream` reads.

    Attributes:
      name: as given to `find`.
      data_dir: the folder of datasets.
      classes: number of classes.
      train: number of training examples.
      test: number of test examples.
    """

    name: str
    data_dir: Path | None
    classes: int
    train: int
    test: int


def find(name: str, data_dir: Path | None = None) -> Dataset | Streamed:
    """Loads a dataset, if its images are of one size and of less than 4 GB together.

    Args:
      name: "digits", or a dataset of TFDS.
      data_dir: folder of datasets that TFDS has prepared, or is to prepare.

    Raises:
      ValueError: if there is no such dataset, or it is none of labelled images.
      OSError: if it can be neither read nor downloaded, or the disk is full.
    """
    builder = builders.find(name, data_dir)
    builders.prepare(builder)
    test = builders.test_split(builder)
    train = builders.train_examples(builder)
    shape = builder.info.features["image"].shape
    if None not in shape and train * math.prod(shape) < MEMORY:
        return load(name, data_dir)
    return Streamed(
        name=name,
        data_dir=data_dir,
        classes=builder.info.features["label"].num_classes,
        train=train,
        test=builder.info.splits[test].num_examples,
    )


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Reads a dataset whose images are all of one size.

    Args:
      name: "digits", or a dataset of TFDS.
      data_dir: folder of datasets that TFDS has prepared, or is to prepare.

    Raises:
      ValueError: if there is no such dataset, or it is none of labelled images, or
        these differ in size.
      OSError: if it can be neither read nor downloaded, or the disk is full.
    """
    builder = builders.find(name, data_dir)
    shape = builder.info.features["image"].shape
    if None in shape:
        raise ValueError(
            f"the images of {name} differ in size: use examples.images.streams.stream, "
            "which crops them to one size and doesn't keep them in memory"
        )
    builders.prepare(builder)
    builders.train_examples(builder)
    splits = ("train", builders.test_split(builder))
    lengths = tuple(builder.info.splits[split].num_examples for split in splits)
    source = f"{builder.info.full_name} {splits} {lengths} {shape}"
    cache = Path(builder.data_path) / "decoded.npz"
    arrays = _read_cache(cache, source)
    if arrays is None:
        train, test = (_decode(builder, split) for split in splits)
        mean, std = _statistics(train.images)
        arrays = dict(
            source=np.array(source),
            train_images=train.images,
            train_labels=train.labels,
            test_images=test.images,
            test_labels=test.labels,
            mean=mean,
            std=std,
        )
        _write_cache(cache, arrays)
    return Dataset(
        name=name,
        classes=builder.info.features["label"].num_classes,
        train=Examples(arrays["train_images"], arrays["train_labels"]),
        test=Examples(arrays["test_images"], arrays["test_labels"]),
        mean=arrays["mean"],
        std=arrays["std"],
    )


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


def _decode(builder: Any, split: str) -> Examples:
    """A split as arrays.

    Neither threads nor processes: with two threads it took longer, and two processes,
    which must not be forked from one that runs JAX, saved a third of the time, once.
    """
    with builders.reading(builder):
        source = builder.as_data_source(split)
        images = np.empty((len(source), *builder.info.features["image"].shape), "u1")
        labels = np.empty(len(source), np.int32)
        progress = tqdm(
            total=len(source),
            desc=f"Reading {builder.name} {split}",
            unit=" images",
            unit_scale=True,
        )
        with progress:
            for start in range(0, len(source), READ_TOGETHER):
                stop = min(start + READ_TOGETHER, len(source))
                records = source.__getitems__(range(start, stop))
                images[start:stop] = [record["image"] for record in records]
                labels[start:stop] = [record["label"] for record in records]
                progress.update(stop - start)
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


def _read_cache(path: Path, source: str) -> dict[str, np.ndarray] | None:
    """Arrays kept from an earlier start, if they are of this source and undamaged."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            # Reading checks the CRC of each array.
            return {**file} if str(file["source"]) == source else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        warnings.warn(f"{path} is damaged and made again ({error})", stacklevel=3)
        return None


def _write_cache(path: Path, arrays: dict[str, Any]) -> None:
    """Keeps arrays; in a folder that can't be written to, says that it doesn't."""
    needed = sum(array.nbytes for array in arrays.values())
    partial = None
    try:
        # Of a name of its own, since several runs may start together.
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix="decoded.", suffix=".partial", delete=False
        ) as file:
            partial = Path(file.name)
            np.savez(file, **arrays)
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            warnings.warn(
                f"{path} can't be written, so that every start decodes the images anew",
                stacklevel=3,
            )
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(builders.full_disk(path.parent, needed)) from error
        else:
            raise
