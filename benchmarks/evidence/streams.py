"""Cells that learn a stream of tasks."""

import dataclasses
from pathlib import Path
import time
from typing import Any

import numpy as np

from examples.images import data
from examples.images.parts import hold_out
from examples.lifelong import tasks
from examples.lifelong.config import Lifelong
from examples.lifelong.learning import learn
from examples.lifelong.learning import Learner
from examples.lifelong.learning import Network
from examples.lifelong.methods import METHODS

VALIDATION = 0.1
TRIAL_TASKS = 5  # of the stream; a trial ends with them


def run(
    config: Lifelong,
    options: dict[str, Any],
    dataset: data.Dataset,
    folder: Path,
    trial: bool,
) -> dict[str, Any]:
    """Learns a stream; see `benchmarks.evidence.images.run`.

    A trial learns only the first tasks, and is scored on held-out training images.
    """
    del folder  # a stream takes minutes, and is learned from its start
    begun = time.perf_counter()
    config = dataclasses.replace(config, **options)
    (method,) = config.methods
    if trial:
        dataset = held_out(dataset)
    stream = tasks.split(dataset, config.classes_per_task, config.seed)
    if trial:
        stream = first(stream, TRIAL_TASKS)
    learner = Learner(Network(config, dataset), METHODS[method])
    accuracies, gradients, _ = learn(learner, stream, config.seed)
    judge = "valid" if trial else "test"
    return {
        f"{judge}_accuracy": round(float(tasks.average_accuracy(accuracies)), 6),
        "forgetting": round(float(tasks.forgetting(accuracies)), 6),
        "gradients": gradients,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def held_out(dataset: data.Dataset) -> data.Dataset:
    """A tenth of the training images in place of the test images."""
    labels = dataset.train.labels
    out = hold_out(labels, VALIDATION)
    parts = {
        name: data.Examples(dataset.train.images[those], labels[those])
        for name, those in (("train", ~out), ("test", out))
    }
    return dataclasses.replace(dataset, **parts)


def first(stream: tasks.Stream, count: int) -> tasks.Stream:
    """The first tasks of a stream."""

    def of_them(examples):
        those = np.flatnonzero(examples.tasks < count)
        return tasks.Labeled(*(array[those] for array in examples))

    return tasks.Stream(
        stream.classes[:count], of_them(stream.train), of_them(stream.test)
    )
