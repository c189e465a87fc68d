"""Batches of datasets that are too large for the memory, or of images of any sizes."""

from collections.abc import Iterator
import io
import math
from pathlib import Path

import grain
import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from examples.images import builders
from examples.images.data import Examples


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
    builder = builders.find(name, data_dir)
    if not isinstance(builder.info.features["image"], tfds.features.Image):
        raise ValueError(
            f"the images of {name} aren't encoded: use examples.images.data.load"
        )
    builders.prepare(builder)
    # TFDS leaves gray JPEGs of a color dataset gray; PIL makes RGB of them.
    encoded = {"image": tfds.decode.SkipDecoding()}
    with builders.reading(builder):
        source = builder.as_data_source(
            builders.test_split(builder) if split == "test" else split, decoders=encoded
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
        with builders.reading(builder):
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
