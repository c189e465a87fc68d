"""Datasets of labelled images as TFDS keeps them: found, prepared and read.

A dataset that isn't in the data folder is downloaded and prepared there, with no
TensorFlow either where TFDS only uses it for files and PNGs, as for CIFAR and the MNIST
family; for others, `pip install tensorflow` once. The data folder is TFDS's own unless
told: `TFDS_DATA_DIR` in the environment, or ~/tensorflow_datasets.
"""

from collections.abc import Iterator
import contextlib
import difflib
import errno
import importlib.util
import io
import os
from pathlib import Path
import shutil
import socket
import sys
import types
from typing import Any
import urllib.parse
import urllib.request

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

# Registers "digits" and "tiny_imagenet" with TFDS.
from examples.images.digits import digits_dataset_builder as digits_dataset_builder
from examples.images.tiny_imagenet import (
    tiny_imagenet_dataset_builder as tiny_imagenet_dataset_builder,
)


def find(name: str, data_dir: Path | None) -> Any:
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


def train_examples(builder: Any) -> int:
    """Number of training examples."""
    if "train" not in builder.info.splits:
        raise ValueError(
            f"{builder.name} has no training images; its splits are "
            f"{', '.join(builder.info.splits)}"
        )
    return builder.info.splits["train"].num_examples


def test_split(builder: Any) -> str:
    """The split to evaluate on: the first that has labels."""
    for split in ("test", "validation"):
        if split in builder.info.splits:
            with reading(builder):
                encoded = {"image": tfds.decode.SkipDecoding()}
                first = builder.as_data_source(split, decoders=encoded)[0]
            if first["label"] >= 0:
                return split
    raise ValueError(
        f"{builder.name} has no labelled test or validation split; its splits are "
        f"{', '.join(builder.info.splits)}"
    )


@contextlib.contextmanager
def reading(builder: Any) -> Iterator[None]:
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


def prepare(builder: Any) -> None:
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
            raise OSError(full_disk(folder, needed, "download ")) from error
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


def full_disk(folder: Path, needed: int, what: str = "") -> str:
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
