"""Episodic memory: a uniform sample of all images seen, however many there are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from examples.lifelong.tasks import Labeled


class Batch(NamedTuple):
    """Images to learn from.

    Attributes:
      images: uint8, of shape (n, height, width, channels).
      labels: int32, of shape (n,), among the classes of the image's own task.
      tasks: int32, of shape (n,).
      weights: of the images in the mean loss; of shape (n,).
    """

    images: jax.Array
    labels: jax.Array
    tasks: jax.Array
    weights: jax.Array


class Memory(NamedTuple):
    """A reservoir. Places are filled one after the other, then replaced at random.

    Attributes:
      images: uint8, of shape (capacity, height, width, channels).
      labels: int32, of shape (capacity,).
      tasks: int32, of shape (capacity,).
      seen: images so far; int32 scalar.
    """

    images: jax.Array
    labels: jax.Array
    tasks: jax.Array
    seen: jax.Array


def empty(capacity: int, like: Labeled) -> Memory:
    """A memory of images such as these."""
    images, labels, tasks = (
        jnp.zeros((capacity, *array.shape[1:]), array.dtype) for array in like
    )
    return Memory(images, labels, tasks, jnp.int32(0))


def remember(memory: Memory, batch: Batch, key: jax.Array) -> Memory:
    r"""Algorithm R: after n images, each of them is there with the same probability.

    .. math::
        s_n = n \text{ if } n < C, \qquad
        s_n \sim U\{0, \ldots, n\} \text{ otherwise}

    is the place that image n = 0, 1, ... takes, or none if :math:`s_n \ge C`, the
    capacity.

    Args:
      memory: the memory.
      batch: the new images, in their order; weights are ignored.
      key: of the draw.

    Returns:
      The new memory.

    References:
      Vitter, `Random Sampling with a Reservoir
      <https://doi.org/10.1145/3147.3165>`_, 1985, Algorithm R
    """
    capacity, size = len(memory.labels), len(batch.labels)
    order = jnp.arange(size, dtype=jnp.int32)
    number = memory.seen + order
    drawn = jax.random.randint(key, (size,), 0, number + 1)
    place = jnp.where(number < capacity, number, drawn)
    # Of images for the same place, the last one stays, which JAX doesn't promise.
    again = (place[None, :] == place[:, None]) & (order[None, :] > order[:, None])
    place = jnp.where(again.any(axis=1), capacity, place)
    images, labels, tasks = (
        kept.at[place].set(new, mode="drop")
        for kept, new in zip(memory[:3], batch[:3], strict=True)
    )
    return Memory(images, labels, tasks, memory.seen + size)


def recall(memory: Memory, size: int, key: jax.Array) -> Batch:
    """Different images from the memory, drawn uniformly.

    Args:
      memory: the memory.
      size: number of images, at most the capacity.
      key: of the draw.

    Returns:
      A batch of `size`. If the memory holds fewer, the others have weight 0.
    """
    is_there = jnp.arange(len(memory.labels)) < memory.seen
    draw = jnp.where(is_there, jax.random.uniform(key, is_there.shape), -1.0)
    highest, place = jax.lax.top_k(draw, size)
    images, labels, tasks = (kept[place] for kept in memory[:3])
    return Batch(images, labels, tasks, jnp.float32(highest >= 0))


def join(first: Batch, second: Batch) -> Batch:
    """Joins two batches."""
    return Batch(*map(jnp.concatenate, zip(first, second, strict=True)))
