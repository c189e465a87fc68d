"""How images reach the training step: from the device's memory, or as a stream."""

from collections.abc import Iterator
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from examples.images import data
from examples.images.sources import Source
from examples.trainer.meshes import Layout

EVALUATION_BATCH = 256
# ImageNet's statistics, which normalize all streams.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


class Indexed:
    """Training examples on the device; a batch is an array of indices.

    Attributes:
      train: number of training examples.
      arrays: the examples, for `take`.
    """

    def __init__(
        self,
        arrays: tuple[np.ndarray, ...],
        batch: tuple[int, ...],
        seed: int,
        layout: Layout,
    ):
        """Copies the examples to the devices.

        Args:
          arrays: with examples along the leading axis.
          batch: shape of a step's examples, those of one minibatch last.
          seed: of their order.
          layout: of the devices.
        """
        self.batch, self.seed, self.layout = batch, seed, layout
        self.train = len(arrays[0])
        self.arrays = tuple(layout.put(array, layout.everywhere) for array in arrays)

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Indices of the examples in the steps from `start` to `stop`, of one epoch."""
        steps = self.train // math.prod(self.batch)
        epoch, first = divmod(start, steps)
        order = data.order(self.seed, epoch, self.train)
        used = order[: steps * math.prod(self.batch)].reshape(steps, *self.batch)
        return used[first : first + stop - start]

    def batches(self, start: int, stop: int) -> Iterator[jax.Array]:
        """The input of `take` for each step."""
        sharding = self.layout.batch(axis=len(self.batch) - 1)
        for indices in self.indices(start, stop):
            yield self.layout.put(indices, sharding)

    def stacked(self, start: int, stop: int) -> jax.Array:
        """The input of `take` for all steps at once."""
        sharding = self.layout.batch(axis=len(self.batch))
        return self.layout.put(self.indices(start, stop), sharding)

    def take(self, arrays: Any, batch: Any) -> Any:
        """The arrays of a batch."""
        return tuple(array[batch] for array in arrays)


class Resident(Indexed):
    """All training images on the device, as uint8.

    Attributes:
      train: number of training examples.
      shape: height, width and channels of an image.
      classes: number of classes.
      mean: of each channel of the training images, where 255 counts as 1.
      std: standard deviation of each channel, in the same unit.
      arrays: the images and labels, for `take`.
    """

    def __init__(
        self, dataset: data.Dataset, batch: tuple[int, ...], seed: int, layout: Layout
    ):
        """Copies the images to the devices; see `Indexed`."""
        super().__init__(tuple(dataset.train), batch, seed, layout)
        self.shape = dataset.train.images.shape[1:]
        self.classes, self.mean, self.std = dataset.classes, dataset.mean, dataset.std

    def evaluation(self, examples: data.Examples) -> Iterator[tuple[jax.Array, ...]]:
        """Images, labels, and a mask that is False where the last batch is filled."""
        size = evaluation_batch(self.layout)
        for batch in data.padded_batches(examples, size):
            yield tuple(self.layout.put(x, self.layout.batch()) for x in batch)


class Streamed:
    """Images read, decoded and cropped as they are needed; a batch is the images.

    Attributes are those of `Resident`.
    """

    def __init__(
        self,
        dataset: data.Streamed,
        batch: tuple[int, ...],
        seed: int,
        layout: Layout,
        image_size: int,
        augment: bool = True,
    ):
        """Sets up the stream; reads nothing yet.

        Args:
          dataset: as found; it trains on all of its training examples.
          batch: shape of a step's examples, those of one minibatch last.
          seed: of their order.
          layout: of the devices.
          image_size: height and width of the crops.
          augment: whether crops for training are random, and half of them mirrored.
        """
        self.source, self.batch, self.seed = dataset.train, batch, seed
        self.augment = augment
        self.train, self.classes, self.layout = (
            len(self.source),
            dataset.classes,
            layout,
        )
        self.shape = (image_size, image_size, 3)
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
        self.arrays = ()
        self.part = (jax.process_index(), jax.process_count())
        self.position: int | None = None

    def batches(self, start: int, stop: int) -> Iterator[Any]:
        """Images and labels of each step."""
        from examples.images import streams  # which need Grain

        if start != self.position:  # a new start, or a rerun
            self.stream = streams.stream(
                self.source,
                batch_size=math.prod(self.batch),
                image_size=self.shape[0],
                seed=self.seed,
                start_step=start,
                train=True,
                augment=self.augment,
                part=self.part,
            )
        sharding = self.layout.batch(axis=len(self.batch) - 1)
        own = (*self.batch[:-1], self.batch[-1] // self.part[1])
        for step in range(start, stop):
            examples = next(self.stream)
            self.position = step + 1
            yield tuple(
                jax.make_array_from_process_local_data(
                    sharding, array.reshape(*own, *array.shape[1:])
                )
                for array in examples
            )

    def take(self, arrays: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        """Images and labels of a batch."""
        return batch

    def evaluation(self, source: Source) -> Iterator[tuple[jax.Array, ...]]:
        """Images, labels, and a mask that is False where the last batch is filled."""
        from examples.images import streams

        size = evaluation_batch(self.layout)
        stream = streams.stream(
            source,
            batch_size=size,
            image_size=self.shape[0],
            train=False,
            part=self.part,
        )
        own = size // self.part[1]
        # A process's last batch may be empty when another's isn't.
        nothing = data.Examples(np.empty((0, *self.shape), "u1"), np.empty(0, "i4"))
        for _ in range(-(-math.ceil(len(source) / self.part[1]) // own)):
            batch = data.pad(next(stream, nothing), own)
            yield tuple(
                jax.make_array_from_process_local_data(self.layout.batch(), array)
                for array in batch
            )


def evaluation_batch(layout: Layout) -> int:
    """A multiple of the number of devices."""
    return EVALUATION_BATCH + -EVALUATION_BATCH % layout.devices


def resize(images: jax.Array, size: int) -> jax.Array:
    """Resizes images (..., h, w, c) to a square, by bilinear interpolation."""
    shape = (*images.shape[:-3], size, size, images.shape[-1])
    if images.shape == shape:
        return images
    return jax.image.resize(images.astype(jnp.float32), shape, "bilinear")
