"""Batches of datasets that are too large for the memory, or of images of any sizes."""

from collections.abc import Iterator
import math
from typing import Any

import grain
import numpy as np
from PIL import Image

from examples.images.data import Examples
from examples.images.sources import Source


def stream(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    seed: int = 0,
    start_step: int = 0,
    train: bool,
    augment: bool = True,
    part: tuple[int, int] = (0, 1),
    workers: int = 16,
) -> Iterator[Examples]:
    """Batches of color images of any sizes, read, decoded and cropped in threads.

    For training: crops of 8 to 100 % of the image and of aspect ratios from 3/4 to 4/3,
    half of them mirrored, in an endless stream of epochs, each in its own order and
    without the examples that don't fill a batch. For evaluation: one epoch, in order;
    of each image, the central square whose side is 224/256 of the shorter side, as for
    training without augmentation. The last batch may be smaller; `pad` fills it.

    Order and crops follow from `seed`, whatever the number of threads. A stream that
    starts at a later step yields what it would have yielded there, without reading the
    earlier batches.

    Args:
      source: the examples.
      batch_size: images in a batch.
      image_size: height and width of the images in a batch.
      seed: of order and crops.
      start_step: number of batches to skip.
      train: whether to yield batches for training.
      augment: whether their crops are random.
      part: (i, n) for one of n processes, which share each batch: every n-th image
        from the i-th is read.
      workers: number of threads. They also prepare the next two batches.

    Returns:
      An iterator over batches.

    Raises:
      ValueError: if there are fewer examples than a batch of training takes.
      OSError: from the iterator, if an image can't be read.
    """
    if train and len(source) < batch_size:
        raise ValueError(
            f"a batch of {batch_size} is more than the {len(source)} training images"
        )

    def random_example(example, rng):
        image, label = example
        return Examples(random_crop(image, image_size, rng), label)

    def central(example):
        image, label = example
        return Examples(central_crop(image, image_size), label)

    images = grain.MapDataset.source(source).seed(seed)
    if train:
        images = images.shuffle()[: len(source) // batch_size * batch_size]
        images = images.repeat()
        images = images.random_map(random_example) if augment else images.map(central)
    else:
        images = images.map(central)
    options = grain.ReadOptions(
        num_threads=workers, prefetch_buffer_size=2 * batch_size
    )
    own, parts = part
    if batch_size % parts:
        raise ValueError(f"{parts} processes can't share a batch of {batch_size}")
    images = images[start_step * batch_size + own :: parts]
    batches = images.to_iter_dataset(options).batch(batch_size // parts)
    return _read(batches)


def _read(batches: Any) -> Iterator[Examples]:
    """Batches with labels of the usual dtype."""
    try:
        for batch in batches:
            yield Examples(batch.images, batch.labels.astype(np.int32))
    except OSError as error:  # Grain adds lines of its own to it
        raise OSError(str(error).partition("\n")[0]) from error


def random_crop(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A crop of random place, area, ratio and direction, resized to a square.

    It is torchvision's `RandomResizedCrop(size)` and `RandomHorizontalFlip()`.
    """
    height, width, _ = pixels.shape
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
    crop = _resize(pixels, (left, top, left + w, top + h), size)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def central_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """The central square of 224/256 of the shorter side, resized."""
    height, width, _ = pixels.shape
    side = min(width, height) * 224 / 256
    left, top = (width - side) / 2, (height - side) / 2
    return _resize(pixels, (left, top, left + side, top + side), size)


def _resize(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: int
) -> np.ndarray:
    """A part of an image as a square of RGB pixels."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    resized = image.convert("RGB").resize(
        (size, size), Image.Resampling.BILINEAR, box=box
    )
    return np.asarray(resized)
