"""Streams of tasks: a dataset split by classes, and measures of what is known.

A task is to tell a few of the classes apart. Tasks come one after the other, and the
task of an image is known at test time (task-incremental learning).
"""

from typing import NamedTuple

import numpy as np

from examples.images import data


class Labeled(NamedTuple):
    """Images of several tasks.

    Attributes:
      images: uint8, of shape (n, height, width, channels).
      labels: int32, of shape (n,), among the classes of the image's own task.
      tasks: int32, of shape (n,).
    """

    images: np.ndarray
    labels: np.ndarray
    tasks: np.ndarray


class Stream(NamedTuple):
    """A dataset as tasks.

    Attributes:
      classes: the classes of each task; integers of shape (tasks, classes per task).
      train: training images of all tasks, in the dataset's order.
      test: test images of all tasks, in the dataset's order.
    """

    classes: np.ndarray
    train: Labeled
    test: Labeled


def split(dataset: data.Dataset, classes_per_task: int, seed: int) -> Stream:
    """Splits a dataset into tasks of equally many classes, drawn by the seed.

    Args:
      dataset: any dataset in memory.
      classes_per_task: a divisor of the number of classes.
      seed: of the order of the classes, as in Gupta et al. 2020.

    Returns:
      The stream of tasks.

    Raises:
      ValueError: if a task has fewer than two classes, classes are left over, or there
        are fewer than two tasks.

    References:
      Lopez-Paz & Ranzato, `Gradient Episodic Memory for Continual Learning
      <https://arxiv.org/abs/1706.08840>`_, 2017, Section 5.1
    """
    classes = dataset.classes
    fitting = [n for n in range(2, classes // 2 + 1) if classes % n == 0]
    if classes_per_task not in fitting:
        left = classes % classes_per_task if classes_per_task > 0 else 0
        raise ValueError(
            f"--classes-per-task must split the {classes} classes of {dataset.name} "
            f"into two or more tasks of two or more classes, with none left over: "
            f"{', '.join(map(str, fitting)) or 'no number does'}; "
            f"got {classes_per_task}" + (f", which leaves {left} over" if left else "")
        )
    order = np.random.default_rng(seed).permutation(classes)
    place = np.argsort(order)

    def labeled(examples):
        task, label = np.divmod(place[examples.labels], classes_per_task)
        return Labeled(examples.images, label.astype("i4"), task.astype("i4"))

    return Stream(
        order.reshape(-1, classes_per_task),
        labeled(dataset.train),
        labeled(dataset.test),
    )


def average_accuracy(accuracies: np.ndarray) -> np.ndarray:
    r"""Mean accuracy on all tasks at the end of the stream.

    .. math::
        A = \frac1T \sum_{j=1}^T a_{T,j}

    Args:
      accuracies: :math:`a_{i,j}` on task j after learning task i, of shape (..., T, T).

    Returns:
      A, of shape (...).

    References:
      Lopez-Paz & Ranzato, `Gradient Episodic Memory for Continual Learning
      <https://arxiv.org/abs/1706.08840>`_, 2017, Section 2
    """
    return accuracies[..., -1, :].mean(axis=-1)


def forgetting(accuracies: np.ndarray) -> np.ndarray:
    r"""Mean drop, at the end, from the best accuracy on each earlier task.

    .. math::
        F = \frac{1}{T-1} \sum_{j=1}^{T-1}
            \max_{l \in \{1, \ldots, T-1\}} (a_{l,j} - a_{T,j})

    Args:
      accuracies: :math:`a_{i,j}` on task j after learning task i, of shape (..., T, T).

    Returns:
      F, of shape (...); negative where later tasks have helped earlier ones.

    References:
      Chaudhry et al., `Riemannian Walk for Incremental Learning
      <https://arxiv.org/abs/1801.10112>`_, 2018, Section 3
    """
    best = accuracies[..., :-1, :-1].max(axis=-2)
    return (best - accuracies[..., -1, :-1]).mean(axis=-1)
