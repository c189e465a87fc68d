"""What a run trains on, and what it is evaluated on.

Labels are made wrong on purpose to see whether an optimizer memorizes them: with
symmetric noise, each wrong label is drawn uniformly among the other classes. Some of
the training examples are held out for validation, so that nothing is chosen by the test
set. They are as noisy as the rest, unless they are to keep their labels.
"""

from typing import NamedTuple

import numpy as np

from examples.images import data
from examples.images.data import Examples
from examples.images.sources import Source

WATCHED = 2000  # at most so many of the examples with wrong labels
NOISE = 1  # so that the noise is drawn differently from the examples' order


class Parts(NamedTuple):
    """The parts of a dataset.

    Attributes:
      train: what is trained on, with the labels given to it.
      valid: what is held out of the training examples; None for nothing.
      flipped: some of `train` that have wrong labels; None without noise.
    """

    train: Examples | Source
    valid: Examples | Source | None
    flipped: Examples | Source | None


def divide(
    dataset: data.Dataset | data.Streamed,
    noise: float,
    share: float,
    seed: int,
    clean: bool = False,
) -> Parts:
    """Gives wrong labels to some training examples, and holds some of them out.

    Args:
      dataset: as found.
      noise: share of the training examples that get a wrong label.
      share: of the training examples, to hold out.
      seed: of the wrong labels; what is held out doesn't depend on it.
      clean: whether what is held out keeps its labels.

    Raises:
      ValueError: if a share is of no example, or of all.
    """
    if not (noise or share):
        return Parts(dataset.train, None, None)
    train, labels = dataset.train, dataset.train.labels
    given, flipped = flip(labels, dataset.classes, noise, seed)
    held_out = hold_out(labels, share)

    def select(indices, all_labels):
        return data.select(train, indices, all_labels[indices])

    watched = np.sort(flipped[~held_out[flipped]][:WATCHED])
    if noise and not len(watched):
        raise ValueError(
            f"--label-noise must change some images that aren't held out; got {noise}, "
            f"which changes {len(flipped)} images, all of them held out"
        )
    return Parts(
        select(np.flatnonzero(~held_out), given),
        select(np.flatnonzero(held_out), labels if clean else given) if share else None,
        select(watched, given) if noise else None,
    )


def flip(
    labels: np.ndarray, classes: int, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is wrong, and the indices of these, in a random order."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(NOISE,)))
    count = _count(share, labels, "--label-noise")
    flipped = rng.permutation(len(labels))[:count]
    given = labels.copy()
    given[flipped] += rng.integers(1, classes, count, labels.dtype)
    return given % classes, flipped


def hold_out(labels: np.ndarray, share: float) -> np.ndarray:
    """Which examples are held out: of each class the same share, to within one."""
    count = _count(share, labels, "--validation")
    shuffled = np.random.default_rng(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], stable=True)]
    # Evenly spaced, as many as there should be in all.
    steps = np.arange(len(labels) + 1) * count // len(labels)
    held_out = np.empty(len(labels), bool)
    held_out[by_class] = np.diff(steps) > 0
    return held_out


def _count(share: float, labels: np.ndarray, flag: str) -> int:
    """The number of examples in a share: some but not all, unless the share is 0."""
    count = round(share * len(labels))
    if share and not 0 < count < len(labels):
        raise ValueError(
            f"{flag} must cover some of the {len(labels)} training images, not "
            f"{'all' if count else 'none'}; got {share}"
        )
    return count
