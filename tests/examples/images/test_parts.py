"""Label noise, and what is held out for validation."""

from dataclasses import replace

import numpy as np
import pytest

from examples.images import data
from examples.images import parts
from examples.images.sources import Arrays

LABELS = np.repeat(np.arange(4), [400, 300, 200, 100]).astype(np.int32)


def dataset(labels=LABELS, streamed=False):
    """Images of which each has a number of its own."""
    numbers = np.arange(len(labels))
    images = np.stack([numbers % 256, numbers // 256], -1).astype(np.uint8)
    images = images[:, None, None]
    if streamed:
        source = Arrays(images, labels)
        return data.Streamed("numbered", 4, source, source, "")
    examples = data.Examples(images, labels)
    return data.Dataset("numbered", 4, examples, examples, np.zeros(2), np.ones(2))


def numbers(examples):
    """Of the images, and their labels."""
    if isinstance(examples, data.Examples):
        images, labels = examples
    else:
        images, labels = zip(
            *map(examples.__getitem__, range(len(examples))), strict=True
        )
        np.testing.assert_array_equal(labels, examples.labels)
    low, high = np.array(images).reshape(-1, 2).astype(int).T
    return low + 256 * high, np.array(labels)


@pytest.mark.parametrize("share", [0.001, 0.4, 0.999])
def test_so_many_labels_are_wrong(share):
    given, flipped = parts.flip(LABELS, 4, share, seed=3)
    assert given.dtype == np.int32
    assert len(flipped) == round(1000 * share)
    np.testing.assert_array_equal(np.sort(flipped), np.flatnonzero(given != LABELS))


def test_wrong_labels_are_drawn_evenly():
    labels = np.zeros(90_000, np.int32)
    given, flipped = parts.flip(labels, 4, 0.5, seed=0)
    counts = np.bincount(given, minlength=4)
    assert counts[0] == 45_000
    chi_squared = np.sum((counts[1:] - 15_000) ** 2 / 15_000)
    assert chi_squared < 13.8  # of 2 degrees of freedom: p = 0.001
    # All examples are equally likely to be among them.
    half = np.sum(flipped < 45_000)
    assert abs(half - 22_500) < 5 * np.sqrt(90_000 / 16)


def test_noise_follows_from_the_seed_alone():
    given, _ = parts.flip(LABELS, 4, 0.4, seed=3)
    np.testing.assert_array_equal(parts.flip(LABELS, 4, 0.4, seed=3)[0], given)
    assert np.any(parts.flip(LABELS, 4, 0.4, seed=4)[0] != given)
    # The same on every machine.
    eight, _ = parts.flip(np.arange(8, dtype=np.int32), 8, 0.5, seed=0)
    np.testing.assert_array_equal(eight, [0, 1, 2, 7, 2, 5, 1, 5])
    # It isn't the order of the examples in an epoch.
    first = np.sort(data.order(3, 0, 1000)[:400])
    assert not np.array_equal(np.flatnonzero(given != LABELS), first)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.333, 0.999])
def test_the_same_share_of_each_class_is_held_out(share):
    labels = np.random.default_rng(0).permutation(LABELS)
    held_out = parts.hold_out(labels, share)
    assert held_out.sum() == round(1000 * share)
    of_each = np.bincount(labels[held_out], minlength=4)
    assert np.all(np.abs(of_each - share * np.array([400, 300, 200, 100])) <= 1)
    np.testing.assert_array_equal(parts.hold_out(labels, share), held_out)


@pytest.mark.parametrize("streamed", [False, True])
def test_parts_of_a_dataset(streamed):
    whole = dataset(streamed=streamed)
    divided = parts.divide(whole, noise=0.4, share=0.1, seed=3)
    given, flipped = parts.flip(LABELS, 4, 0.4, seed=3)
    train, labels = numbers(divided.train)
    valid, valid_labels = numbers(divided.valid)
    np.testing.assert_array_equal(np.sort([*train, *valid]), np.arange(1000))
    assert len(valid) == 100
    np.testing.assert_array_equal(labels, given[train])
    np.testing.assert_array_equal(valid_labels, given[valid])  # as noisy
    clean = parts.divide(whole, noise=0.4, share=0.1, seed=3, clean=True)
    for part, other in zip(clean, divided, strict=True):
        np.testing.assert_array_equal(numbers(part)[0], numbers(other)[0])
    np.testing.assert_array_equal(numbers(clean.train)[1], labels)
    np.testing.assert_array_equal(numbers(clean.valid)[1], LABELS[valid])
    wrong, wrong_labels = numbers(divided.flipped)
    np.testing.assert_array_equal(wrong, np.setdiff1d(flipped, valid))
    np.testing.assert_array_equal(wrong_labels, given[wrong])
    # What is held out doesn't depend on the seed, and so neither on the noise.
    for noise, seed in ((0.4, 4), (0.0, 0)):
        other = parts.divide(whole, noise=noise, share=0.1, seed=seed)
        np.testing.assert_array_equal(numbers(other.valid)[0], valid)


def test_at_most_2000_wrong_labels_are_watched():
    labels = np.repeat(LABELS, 10)
    flipped = parts.divide(dataset(labels), noise=0.4, share=0.0, seed=0).flipped
    chosen, _ = numbers(flipped)
    assert len(set(chosen)) == 2000
    # They are of all classes: four in ten are of the first.
    assert abs(np.sum(labels[chosen] == 0) - 800) < 5 * np.sqrt(2000 * 0.4 * 0.6)


def test_without_either_it_is_as_it_was():
    whole = dataset()
    assert parts.divide(whole, noise=0.0, share=0.0, seed=0) == (
        whole.train,
        None,
        None,
    )
    noisy = parts.divide(whole, noise=0.1, share=0.0, seed=0)
    assert noisy.valid is None
    np.testing.assert_array_equal(noisy.train.images, whole.train.images)
    held_out = parts.divide(whole, noise=0.0, share=0.1, seed=0)
    assert held_out.flipped is None


def test_streamed_labels_are_not_read_without_need():
    class Unread:
        def __len__(self):
            return 3

        @property
        def labels(self):
            raise AssertionError

    whole = replace(dataset(streamed=True), train=Unread())
    assert parts.divide(whole, 0.0, 0.0, 0).train is whole.train


@pytest.mark.parametrize(
    ("noise", "share", "message"),
    [
        (0.0004, 0.0, "^--label-noise must cover some of the 1000 .*none; got 0.0004$"),
        (0.9999, 0.0, "^--label-noise must cover some of the 1000 .*all; got 0.9999$"),
        (0.0, 0.0004, "^--validation must cover some of the 1000 .*none; got 0.0004$"),
        (0.0, 0.9999, "^--validation must cover some of the 1000 .*all; got 0.9999$"),
        (0.001, 0.999, "^--label-noise must change some images that aren't held out"),
    ],
)
def test_shares_that_are_of_nothing(noise, share, message):
    with pytest.raises(ValueError, match=message):
        parts.divide(dataset(), noise, share, seed=0)
