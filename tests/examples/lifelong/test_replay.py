"""The memory is a uniform sample of what was seen, and is recalled uniformly."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.lifelong import replay
from examples.lifelong import tasks
from examples.lifelong.replay import Batch
from tests.library.members import each

recall = jax.jit(replay.recall, static_argnums=1)
remember = jax.jit(replay.remember)


def numbered(numbers):
    """A batch of one-pixel images whose labels are these."""
    labels = jnp.asarray(numbers, jnp.int32)
    images = jnp.uint8(labels % 256)[:, None, None, None]
    return Batch(images, labels, labels % 7, jnp.ones(len(labels)))


def memory_of(capacity):
    like = tasks.Labeled(*map(np.asarray, numbered([0])[:3]))
    return replay.empty(capacity, like)


def test_a_memory_that_is_not_full_holds_all_in_order():
    memory = memory_of(10)
    for start in (0, 4):
        memory = remember(
            memory, numbered(range(start, start + 4)), jax.random.key(start)
        )
    assert memory.seen == 8
    expected = numbered(range(8))
    chex.assert_trees_all_equal(
        (memory.images[:8], memory.labels[:8], memory.tasks[:8]), expected[:3]
    )


def test_recalled_images_differ_and_those_missing_weigh_nothing():
    memory = memory_of(10)
    assert not recall(memory, 4, jax.random.key(0)).weights.any()
    memory = remember(memory, numbered([5, 6, 7]), jax.random.key(0))
    recalled = recall(memory, 4, jax.random.key(1))
    assert list(recalled.weights) == [1, 1, 1, 0]
    assert sorted(recalled.labels[:3].tolist()) == [5, 6, 7]
    chex.assert_trees_all_equal(recalled[:3], numbered(recalled.labels)[:3])


def test_recalled_images_are_drawn_uniformly():
    memory = remember(memory_of(9), numbered(range(6)), jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4000)
    recalled = jax.jit(jax.vmap(lambda key: recall(memory, 2, key).labels))(keys)
    assert_uniform(np.bincount(recalled.ravel(), minlength=6), 4000, 2 / 6)


def assert_uniform(counts, draws, probability):
    """Each within five standard deviations, one in two million beyond them."""
    deviation = np.sqrt(draws * probability * (1 - probability))
    np.testing.assert_allclose(counts, draws * probability, atol=5 * deviation)


@pytest.mark.parametrize(
    ("capacity", "batches", "size"), each([(5, 4, 5), (8, 3, 7)], [(8, 3, 7)])
)
def test_every_image_seen_is_kept_with_the_same_probability(capacity, batches, size):
    """In batches, too, where several images may be sent to the same place."""
    draws, empty = 4000, memory_of(capacity)

    def kept(key):
        memory = empty
        for i, key_of_batch in enumerate(jax.random.split(key, batches)):
            batch = numbered(range(i * size, (i + 1) * size))
            memory = remember(memory, batch, key_of_batch)
        return memory.labels, memory.tasks

    keys = jax.random.split(jax.random.key(0), draws)
    labels, of_tasks = jax.jit(jax.vmap(kept))(keys)
    np.testing.assert_array_equal(
        of_tasks, labels % 7
    )  # what belongs together stays so
    assert all(len(set(row)) == capacity for row in labels.tolist())
    seen = batches * size
    counts = np.bincount(np.ravel(labels), minlength=seen)
    assert_uniform(counts, draws, capacity / seen)
