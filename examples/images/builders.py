"""Finds, prepares and reads TFDS's datasets of labeled images.

Preparing a dataset needs TensorFlow; reading a prepared one doesn't. The data folder
is TFDS's own if none is given: `TFDS_DATA_DIR` in the environment, or
~/tensorflow_datasets.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import difflib
import errno
import functools
import importlib.util
from pathlib import Path
import shutil
import socket
from typing import Any
import urllib.parse
import urllib.request

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from examples.images.sources import check_labels
from examples.images.sources import decode
from examples.images.sources import digest
from examples.images.sources import first_line
from examples.images.sources import Splits

READ_TOGETHER = 500  # records; one by one takes longer


class Records:
    """A split that TFDS has prepared, as a `Source`."""

    def __init__(self, builder: Any, split: str):
        """Opens the files of a split; images aren't decoded yet."""
        self.builder = builder
        self.what = f"of {builder.info.full_name} {split}"
        feature = builder.info.features["image"]
        self.channels = feature.shape[-1]
        # TFDS leaves gray JPEGs of a color dataset gray; `decode` makes RGB of them.
        encoded = isinstance(feature, tfds.features.Image)
        decoders: Any = {"image": tfds.decode.SkipDecoding()} if encoded else None
        with reading(builder):
            self.records = builder.as_data_source(split, decoders=decoders)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image and its label."""
        with reading(self.builder):
            return self._example(index, self.records[index])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """Several examples at once."""
        with reading(self.builder):
            records = self.records.__getitems__(indices)
            return [*map(self._example, indices, records)]

    @property
    def labels(self) -> np.ndarray:
        """Labels of all examples; reads all records once."""
        return self._labels

    @functools.cached_property
    def _labels(self) -> np.ndarray:
        """Read when they are needed."""
        parts = range(0, len(self), READ_TOGETHER)
        labels = np.empty(len(self), np.int32)
        for start in tqdm(parts, desc=f"Reading the labels {self.what}"):
            part = range(start, min(start + READ_TOGETHER, len(self)))
            with reading(self.builder):
                records = self.records.__getitems__(part)
                labels[part.start : part.stop] = [r["label"] for r in records]
        check_labels(labels, self.classes, f"the labels {self.what}")
        return labels

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.builder.info.features["label"].num_classes

    def _example(self, index: int, record: Any) -> tuple[np.ndarray, int]:
        """The image and the label of a record."""
        image, label = record["image"], record["label"]
        if isinstance(image, bytes):
            image = decode(image, self.channels, f"image {index} {self.what}")
        return image, int(label)


def find(name: str, data_dir: Path | None) -> Splits:
    """Opens a dataset of TFDS, and prepares it if it isn't there.

    Raises:
      ValueError: if there is no such dataset, or it isn't one of labeled images.
      OSError: if it can be neither read nor prepared, or the disk is full.
    """
    builder = _builder(name, data_dir)
    if not builder.is_prepared():
        prepare(builder)
        builder = _builder(name, data_dir)  # which reads what is there now
    if "train" not in builder.info.splits:
        raise ValueError(
            f"{name} has no training images; its splits are "
            f"{', '.join(builder.info.splits)}"
        )
    train, shape = Records(builder, "train"), builder.info.features["image"].shape
    shape = None if None in shape else shape
    found = digest([builder.info.full_name])  # which has the version
    return Splits(name, train.classes, shape, train, _test(builder), found)


def _builder(name: str, data_dir: Path | None) -> Any:
    """TFDS's builder of a dataset of labeled images, prepared or not."""
    # Asking TFDS for an unknown name takes a network and TensorFlow.
    known = tfds.list_builders(with_community_datasets=False)
    base = name.partition("/")[0].partition(":")[0]
    if base not in known:
        near = difflib.get_close_matches(base, ["digits", *known])
        raise ValueError(
            f"there is no dataset {name}"
            + (f"; did you mean {', '.join(near)}?" if near else ".")
            + " Give your own as folder:PATH, PATH.npz or hf:PATH; digits is built in; "
            "those of TFDS are listed at "
            "https://www.tensorflow.org/datasets/catalog/overview#image_classification"
        )
    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # of its config, version or a damaged dataset_info.json
        raise OSError(
            f"TFDS can't open {name} in {data_dir or 'its data folder'}: "
            f"{first_line(error)}. If the files of the dataset are damaged, delete "
            "its folder there, and start again"
        ) from error
    if not _are_labeled_images(builder.info.features):
        raise ValueError(
            f"{name} isn't a dataset for image classification, with a uint8 image and "
            f"a class label: its features are {builder.info.features}"
        )
    return builder


def _are_labeled_images(features: Any) -> bool:
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


def _test(builder: Any) -> Records:
    """The split to evaluate on: the first that has labels."""
    for split in ("test", "validation"):
        if split in builder.info.splits:
            test = Records(builder, split)
            if test[0][1] >= 0:
                return test
    raise ValueError(
        f"{builder.name} has no labeled test or validation split; its splits are "
        f"{', '.join(builder.info.splits)}"
    )


@contextlib.contextmanager
def reading(builder: Any) -> Iterator[None]:
    """Says what to do when a dataset can't be read."""
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
            f"{builder.info.full_name} can't be read ({first_line(error)}). If its "
            f"files are damaged, delete {builder.data_path}; the next start prepares "
            "them again"
        ) from error


def prepare(builder: Any) -> None:
    """Downloads and prepares a dataset that isn't there."""
    absent = f"{builder.info.full_name} isn't in {builder.data_dir_root}"
    if not has_tensorflow():
        raise OSError(
            f"{absent}, and TFDS prepares it with TensorFlow: pip install "
            "tensorflow-cpu, start again, and uninstall it if you like"
        )
    advice = (
        "Start once with a network connection; or give --data-dir, the folder in which "
        f"TFDS has prepared it, with {builder.info.full_name} inside"
    )
    for host in sorted(_hosts(builder)):
        if not _resolves(host):
            raise FileNotFoundError(
                f"{absent}, and {host} can't be reached to download it. {advice}"
            )
    settings = tfds.download.DownloadConfig(
        try_download_gcs=False,  # where TFDS hosts files for TensorFlow
        force_checksums_validation=True,
    )
    try:
        builder.download_and_prepare(
            file_format="array_record", download_config=settings
        )
    except Exception as error:
        if builder.is_prepared():  # by another run, in the meantime
            return
        causes = list(_causes(error))
        if any(_is_full_disk(cause) for cause in causes):
            raise OSError(_full_disk(builder)) from error
        reason = str(causes[-1]).rstrip(". \n")
        raise OSError(
            f"{absent}, and couldn't be downloaded and prepared: {reason}. {advice}"
        ) from error


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed, which takes seconds to import."""
    return importlib.util.find_spec("tensorflow") is not None


def _hosts(builder: Any) -> set[str]:
    """Where a dataset is downloaded from, unless that is done by hand."""
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:  # TFDS explains them better
        return set()
    infos = builder.url_infos or {}
    return {urllib.parse.urlsplit(url).hostname or "" for url in infos}


def _resolves(host: str) -> bool:
    """Whether a host can be asked; if not, TFDS would try for minutes."""
    if urllib.request.getproxies():  # proxies resolve names for us
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


def _full_disk(builder: Any) -> str:
    """How much is needed, and where."""
    folder = Path(builder.data_dir_root)
    needed = sum(info.size for info in (builder.url_infos or {}).values()) / 1e6
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"the disk of {folder} is full: the download takes {needed:,.0f} MB, and "
        f"{free:,.0f} MB are free. Make space there, or give another --data-dir"
    )
