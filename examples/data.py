"""Image-classification datasets: every one of them through TFDS, without TensorFlow.

`load` reads a dataset of small images into memory; `stream` yields batches of one that
is too large, or whose images differ in size; `find` says which it is. Names are those
of TFDS, with its configs and versions if need be ("eurosat/rgb"), and "tiny_imagenet"
and "digits", of which the last needs no network.

A dataset that isn't in the data folder is downloaded and prepared there, with no
TensorFlow either where TFDS only uses it for files and PNGs, as for CIFAR and the MNIST
family; for others, `pip install tensorflow` once. The data folder is TFDS's own unless
told: `TFDS_DATA_DIR` in the environment, or ~/tensorflow_datasets.

Decoding 60,000 PNGs takes some ten seconds. So `load` keeps the arrays, beside the
records that they come from: `decoded.npz` in the dataset's folder, such as
~/tensorflow_datasets/cifar10/3.0.2. It can be deleted at any time.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import difflib
import errno
import importlib.util
import io
import math
import os
from pathlib import Path
import shutil
import socket
import sys
import tempfile
import types
from typing import Any
from typing import NamedTuple
import urllib.parse
import urllib.request
import warnings
import zipfile

import grain
import numpy as np
from PIL import Image
import tensorflow_datasets as tfds
from tqdm import tqdm

# Registers "digits" and "tiny_imagenet" with TFDS.
from examples.digits import digits_dataset_builder as digits_dataset_builder
from examples.tiny_imagenet import (
    tiny_imagenet_dataset_builder as tiny_imagenet_dataset_builder,
)

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
    builder = _builder(name, data_dir)
    _prepare(builder)
    test = _test_split(builder)
    train = _train_examples(builder)
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


# ---- In memory -----------------------------------------------------------------------


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
    builder = _builder(name, data_dir)
    shape = builder.info.features["image"].shape
    if None in shape:
        raise ValueError(
            f"the images of {name} differ in size: use examples.data.stream, which "
            "crops them to one size and doesn't keep them in memory"
        )
    _prepare(builder)
    _train_examples(builder)
    splits = ("train", _test_split(builder))
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
    with _reading(builder):
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
            raise OSError(_full_disk(path.parent, needed)) from error
        else:
            raise


# ---- As a stream ---------------------------------------------------------------------


def stream(
    name: str,
    split: str,
    data_dir: Path | None = None,
    *,
    batch_size: int,
    image_size: int,
    seed: int = 0,
    start_step: int = 0,
    train: bool,
    part: tuple[int, int] = (0, 1),
    workers: int = 16,
) -> Iterator[Examples]:
    """Batches of color images of any sizes, read, decoded and cropped in threads.

    For training: crops of 8 to 100 % of the image and of aspect ratios from 3/4 to 4/3,
    half of them mirrored, in an endless stream of epochs, each in an order of its own
    and without the examples that don't fill a batch. For evaluation: one epoch, in
    order; of each image, the central square whose side is 224/256 of the shorter side.
    The last batch may be smaller; `pad` fills it.

    Order and crops follow from `seed`, whatever the number of threads. A stream that
    starts at a later step yields what it would have yielded there, and reads nothing of
    what comes before.

    Args:
      name: a dataset of TFDS.
      split: "train" or "test", which is the validation split where the test images have
        no labels (as those of imagenet2012), or one in TFDS's notation, "train[:10%]".
      data_dir: folder of datasets that TFDS has prepared, or is to prepare.
      batch_size: images in a batch.
      image_size: height and width of the images in a batch.
      seed: of order and crops.
      start_step: number of batches to leave out.
      train: whether to yield what training needs.
      part: (i, n) for one of n processes, which share each batch: every n-th image
        from the i-th is read.
      workers: number of threads. They also hold the next two batches ready.

    Returns:
      An iterator over batches.

    Raises:
      ValueError: if there is no such dataset, or it is none of labelled images, or the
        split is smaller than a batch for training.
      OSError: if it can be neither read nor downloaded, or the disk is full; from the
        iterator, if a record is damaged.
    """
    builder = _builder(name, data_dir)
    if not isinstance(builder.info.features["image"], tfds.features.Image):
        raise ValueError(f"the images of {name} aren't encoded: use examples.data.load")
    _prepare(builder)
    # TFDS leaves gray JPEGs of a color dataset gray; PIL makes RGB of them.
    encoded = {"image": tfds.decode.SkipDecoding()}
    with _reading(builder):
        source = builder.as_data_source(
            _test_split(builder) if split == "test" else split, decoders=encoded
        )
    if train and len(source) < batch_size:
        raise ValueError(
            f"a batch of {batch_size} is more than the {len(source)} training images"
        )

    def random_example(record, rng):
        return Examples(random_crop(record["image"], image_size, rng), record["label"])

    def central_example(record):
        return Examples(central_crop(record["image"], image_size), record["label"])

    images = grain.MapDataset.source(source).seed(seed)
    if train:
        images = images.shuffle()[: len(source) // batch_size * batch_size]
        images = images.repeat().random_map(random_example)
    else:
        images = images.map(central_example)
    options = grain.ReadOptions(
        num_threads=workers, prefetch_buffer_size=2 * batch_size
    )
    own, parts = part
    if batch_size % parts:
        raise ValueError(f"{parts} processes can't share a batch of {batch_size}")
    images = images[start_step * batch_size + own :: parts]
    batches = images.to_iter_dataset(options).batch(batch_size // parts)

    def read():
        with _reading(builder):
            for batch in batches:
                yield Examples(batch.images, batch.labels.astype(np.int32))

    return read()


def random_crop(encoded: bytes, size: int, rng: np.random.Generator) -> np.ndarray:
    """A crop of random place, area, ratio and direction, resized to a square.

    It is torchvision's `RandomResizedCrop(size)` and `RandomHorizontalFlip()`.
    """
    image = Image.open(io.BytesIO(encoded))
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(width - w, endpoint=True))
            top = int(rng.integers(height - h, endpoint=True))
            break
    else:  # a long image: the largest central crop of a permitted ratio
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
    pixels = _resize(image, (left, top, left + w, top + h), size)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def central_crop(encoded: bytes, size: int) -> np.ndarray:
    """The central square of 224/256 of the shorter side, resized."""
    image = Image.open(io.BytesIO(encoded))
    width, height = image.size
    side = min(width, height) * 224 / 256
    left, top = (width - side) / 2, (height - side) / 2
    return _resize(image, (left, top, left + side, top + side), size)


def _resize(
    image: Image.Image, box: tuple[float, float, float, float], size: int
) -> np.ndarray:
    """A part of an image as a square of RGB pixels."""
    resized = image.convert("RGB").resize(
        (size, size), Image.Resampling.BILINEAR, box=box
    )
    return np.asarray(resized)


# ---- Datasets of TFDS ----------------------------------------------------------------


def _builder(name: str, data_dir: Path | None) -> Any:
    """TFDS's builder of a dataset of labelled images, prepared or not."""
    # Asking TFDS for an unknown name takes a network and TensorFlow.
    known = tfds.list_builders(with_community_datasets=False)
    base = name.partition("/")[0].partition(":")[0]
    if base not in known:
        near = difflib.get_close_matches(base, known)
        raise ValueError(
            f"there is no dataset {name}"
            + (f"; did you mean {', '.join(near)}?" if near else ".")
            + " digits is built in; the others are listed at "
            "https://www.tensorflow.org/datasets/catalog/overview#image_classification"
        )
    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # of its config, version or a damaged dataset_info.json
        raise OSError(
            f"TFDS can't open {name} in {data_dir or 'its data folder'}: "
            f"{_first_line(error)}. If the files of the dataset are damaged, delete "
            "its folder there, and start again"
        ) from error
    if not _are_labelled_images(builder.info.features):
        raise ValueError(
            f"{name} isn't a dataset for image classification, with a uint8 image and "
            f"a class label: its features are {builder.info.features}"
        )
    return builder


def _are_labelled_images(features: Any) -> bool:
    """Whether these are features of a dataset for image classification."""
    if not isinstance(features, tfds.features.FeaturesDict):
        return False
    if not {"image", "label"} <= {*features}:
        return False
    image: Any = features["image"]
    return (
        isinstance(image, (tfds.features.Image, tfds.features.Tensor))
        and isinstance(image.shape, tuple)
        and len(image.shape) == 3
        and image.np_dtype == np.uint8
        and isinstance(features["label"], tfds.features.ClassLabel)
    )


def _train_examples(builder: Any) -> int:
    """Number of training examples."""
    if "train" not in builder.info.splits:
        raise ValueError(
            f"{builder.name} has no training images; its splits are "
            f"{', '.join(builder.info.splits)}"
        )
    return builder.info.splits["train"].num_examples


def _test_split(builder: Any) -> str:
    """The split to evaluate on: the first that has labels."""
    for split in ("test", "validation"):
        if split in builder.info.splits:
            with _reading(builder):
                encoded = {"image": tfds.decode.SkipDecoding()}
                first = builder.as_data_source(split, decoders=encoded)[0]
            if first["label"] >= 0:
                return split
    raise ValueError(
        f"{builder.name} has no labelled test or validation split; its splits are "
        f"{', '.join(builder.info.splits)}"
    )


@contextlib.contextmanager
def _reading(builder: Any) -> Iterator[None]:
    """Says what to do where a dataset can't be read."""
    try:
        yield
    except NotImplementedError as error:
        raise OSError(
            f"{builder.data_path} is in a format that can't be read without "
            "TensorFlow: give another --data-dir, or delete that folder, so that the "
            "dataset is prepared again"
        ) from error
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise OSError(
            f"{builder.info.full_name} can't be read ({_first_line(error)}). If its "
            f"files are damaged, delete {builder.data_path}, and start again to "
            "prepare it anew"
        ) from error


def _prepare(builder: Any) -> None:
    """Downloads and prepares a dataset that isn't there."""
    if builder.is_prepared():
        return
    absent = f"{builder.info.full_name} isn't in {builder.data_dir_root}"
    advice = (
        "Start once where there is a network; or give --data-dir, the folder in which "
        f"TFDS has prepared it, with {builder.info.full_name} inside"
    )
    infos = builder.url_infos or {}
    hosts = {urllib.parse.urlsplit(url).hostname or "" for url in infos}
    for host in sorted(hosts):
        # What must be downloaded by hand, TFDS says better.
        if not (builder.MANUAL_DOWNLOAD_INSTRUCTIONS or _resolves(host)):
            raise FileNotFoundError(
                f"{absent}, and {host} can't be reached to download it. {advice}"
            )
    settings = tfds.download.DownloadConfig(
        # What TFDS hosts there are files for TensorFlow.
        try_download_gcs=False
    )
    try:
        with _stand_in_for_tensorflow():
            builder.download_and_prepare(
                file_format="array_record", download_config=settings
            )
    except Exception as error:
        if builder.is_prepared():  # by another run, in the meantime
            return
        causes = list(_causes(error))
        if any(_is_full_disk(cause) for cause in causes):
            needed = sum(info.size for info in infos.values())
            folder = Path(builder.data_dir_root)
            raise OSError(_full_disk(folder, needed, "download ")) from error
        for cause in causes:
            if isinstance(cause, _TensorFlowIsNeeded):
                raise OSError(
                    f"{absent}, and preparing it takes TensorFlow, for {cause}: pip "
                    "install tensorflow, start again, and uninstall it if you like"
                ) from error
        reason = str(causes[-1]).rstrip(". \n")
        raise OSError(
            f"{absent}, and couldn't be downloaded and prepared: {reason}. {advice}"
        ) from error


def _resolves(host: str) -> bool:
    """Whether a host can be asked; if not, TFDS would try for minutes."""
    if urllib.request.getproxies():  # which resolve names in our stead
        return True
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_full_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and (
        error.errno in (errno.ENOSPC, errno.EDQUOT)
        or "Not enough disk space" in str(error)  # TFDS's own, which has no number
    )


def _full_disk(folder: Path, needed: int, what: str = "") -> str:
    """How much is needed, and where."""
    return (
        f"the disk of {folder} is full: {what}{needed / 1e6:,.0f} MB needed, "
        f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB free. Make space there, or "
        "give another --data-dir"
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


class _TensorFlowIsNeeded(AttributeError):
    """What the stand-in hasn't got."""


class _StandIn(types.ModuleType):
    """A module that says so where something of it is missing."""

    def __init__(self, name: str, **members: Any):
        """Makes a module of these members."""
        super().__init__(name)
        vars(self).update(members)

    def __getattr__(self, name: str) -> Any:
        """Reached by what isn't there."""
        raise _TensorFlowIsNeeded(f"{self.__name__}.{name}")


@contextlib.contextmanager
def _stand_in_for_tensorflow() -> Iterator[None]:
    """While TFDS prepares a dataset: what it wants of TensorFlow, without it.

    Reading needs no TensorFlow. Preparing does, but for most datasets of images only to
    open files and to encode PNGs. Where TensorFlow is installed, it is used.
    """
    if importlib.util.find_spec("tensorflow") is not None:
        yield
        return

    def encode_png(pixels: np.ndarray) -> Any:
        buffer = io.BytesIO()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image.save(buffer, "PNG")
        return types.SimpleNamespace(numpy=buffer.getvalue)

    def nothing(name: str, *bases: type) -> type:
        """A type that nothing is of, for `isinstance` and `except`."""
        return type(name, bases, {})

    gfile = _StandIn(
        "tensorflow.io.gfile",
        GFile=open,
        exists=os.path.exists,
        isdir=os.path.isdir,
        listdir=os.listdir,
    )
    sys.modules["tensorflow"] = _StandIn(
        "tensorflow",
        __version__="2.1.0",  # the least that TFDS accepts
        executing_eagerly=lambda: True,
        compat=_StandIn("tensorflow.compat", as_text=os.fsdecode),
        dtypes=_StandIn("tensorflow.dtypes", DType=nothing("DType")),
        errors=_StandIn(
            "tensorflow.errors",
            UnimplementedError=nothing("UnimplementedError", Exception),
        ),
        image=_StandIn("tensorflow.image", encode_png=encode_png),
        io=_StandIn("tensorflow.io", gfile=gfile),
        Tensor=nothing("Tensor"),
    )
    try:
        yield
    finally:
        del sys.modules["tensorflow"]
