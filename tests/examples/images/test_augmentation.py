"""Augmentation and normalization of image batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.images import augmentation


def batch(count=64, height=8, width=10, channels=3):
    """Images without black pixels."""
    shape = (count, height, width, channels)
    return np.random.default_rng(0).integers(1, 256, size=shape, dtype=np.uint8)


def variants(image, pad, flip):
    """Every crop of an image padded with zeros, and its mirror images."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    height, width, _ = image.shape
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[top : top + height, left : left + width]
            yield crop
            if flip:
                yield crop[:, ::-1]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [0, 2, 4])
def test_each_image_is_one_of_its_variants(pad, flip):
    images = batch()
    augment = jax.jit(functools.partial(augmentation.augment, pad=pad, flip=flip))
    augmented = augment(jax.random.key(0), images)
    assert augmented.dtype == jnp.uint8
    drawn = []
    for image, result in zip(images, np.asarray(augmented), strict=True):
        found = [
            i
            for i, variant in enumerate(variants(image, pad, flip))
            if np.array_equal(variant, result)
        ]
        assert len(found) == 1
        drawn += found
    # Each image draws for itself.
    possible = (2 * pad + 1) ** 2 * (1 + flip)
    assert len(set(drawn)) > 0.3 * min(possible, len(images))


def test_draws_are_uniform():
    # One pixel in the middle shows where an image went; its neighbor, whether it was
    # mirrored.
    images = np.zeros((20_000, 5, 5, 1), np.uint8)
    images[:, 2, 2], images[:, 2, 3] = 100, 200
    results = np.asarray(augmentation.augment(jax.random.key(1), images, pad=1))
    _, rows, columns, _ = np.nonzero(results == 100)
    mirrored = np.nonzero(results == 200)[2] < columns
    assert len(rows) == len(images)
    cells = np.zeros((3, 3, 2))
    np.add.at(cells, (rows - 1, columns - 1, mirrored.astype(int)), 1)
    expected = len(images) / 18
    chi_squared = np.sum((cells - expected) ** 2 / expected)
    assert chi_squared < 41  # of 17 degrees of freedom: p = 0.001


def test_key_decides():
    images = batch()
    first, again, other = (
        augmentation.augment(jax.random.key(seed), images) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_normalize():
    images = batch()
    mean = images.mean(axis=(0, 1, 2)) / 255
    std = images.std(axis=(0, 1, 2)) / 255
    normalized = jax.jit(augmentation.normalize)(images, mean, std)
    assert normalized.dtype == jnp.float32
    expected = (images / 255 - mean) / std
    np.testing.assert_allclose(normalized, expected, atol=1e-5)
    np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, atol=1e-5)
    # Of any leading shape.
    several = augmentation.normalize(images.reshape(4, 16, 8, 10, 3), mean, std)
    np.testing.assert_allclose(several.reshape(expected.shape), expected, atol=1e-5)


def test_normalize_rounds_once():
    images = batch()
    mean, std = np.full(3, 0.4), np.full(3, 0.3)
    rounded = augmentation.normalize(images, mean, std, jnp.bfloat16)
    exact = augmentation.normalize(images, mean, std)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))
