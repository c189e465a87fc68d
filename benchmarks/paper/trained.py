"""Networks trained by the methods that the paper compares, for what measures them.

A network is trained once, by `examples.trainer.runs`, in a folder of its own. Whatever
measures it later finds it there, and an interrupted training continues.
"""

import dataclasses
from pathlib import Path
from typing import Any
from typing import Literal
from typing import NamedTuple

import numpy as np
import optax

from examples.images import data
from examples.images.config import Config
from examples.images.config import RECIPES
from examples.images.training import Training
from examples.trainer import runs
import lookbehind_optax as lb

# What of a configuration makes a method; α is 1/k.
METHODS: dict[str, dict[str, Any]] = {
    "SGD": {"optimizer": "base"},
    "SAM": {"optimizer": "sam"},
    "Multistep-SAM": {"optimizer": "multistep_sam", "k": 2},
    "Lookbehind-SAM": {"optimizer": "lookbehind_sam", "k": 2, "alpha": 0.5},
}


class Size(NamedTuple):
    """How much of an experiment is done.

    Attributes:
      config: of every training.
      rhos: radii to train with.
      rho: the one of them to measure more closely.
      seeds: networks of each method.
      examples: images to measure on, the first of the training or test set.
      batch_size: of the measurements; also the m of the m-sharpness.
    """

    config: Config
    rhos: tuple[float, ...]
    rho: float
    seeds: int
    examples: int
    batch_size: int


SIZES = {
    "smoke": Size(
        Config(model="convnet-bn", epochs=1, batch_size=128, learning_rate=0.1),
        rhos=(0.02, 0.05),
        rho=0.05,
        seeds=1,
        examples=256,
        batch_size=128,
    ),
    # A quarter of the pixels, for which the networks take minutes rather than hours.
    "small": Size(
        Config(
            dataset="fashion_mnist",
            image_size=14,
            model="convnet-bn",
            epochs=2,
            batch_size=128,
            learning_rate=0.1,
        ),
        rhos=(0.01, 0.02, 0.05, 0.1),
        rho=0.05,
        seeds=3,
        examples=4096,
        batch_size=128,
    ),
    "paper": Size(
        Config(**RECIPES["cifar"]),
        rhos=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
        rho=0.05,
        seeds=3,
        examples=50_000,
        batch_size=128,
    ),
}
Name = Literal["smoke", "small", "paper"]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What all experiments on trained networks are told.

    Attributes:
      size: smoke takes a minute on two CPU cores, small less than half an hour there,
        and paper days on a GPU.
      data_dir: folder of datasets that TFDS has prepared, or is to prepare.
      runs: folder of trained networks, which other experiments of that size use, too.
      output: folder for the results, as JSON, Markdown and PNG; they are replaced.
    """

    size: Name = "smoke"
    data_dir: Path | None = None
    runs: Path = Path("runs/experiments")
    output: Path = Path("benchmarks/results/paper")


@dataclasses.dataclass(frozen=True, eq=False)  # hashed as one
class Trained:
    """A trained network, and functions of it for `lookbehind_optax.measure`.

    Attributes:
      training: what trained it.
      params: its slow weights.
      batch_stats: running statistics of BatchNorm.
      summary: of its run.
    """

    training: Training
    params: Any
    batch_stats: Any
    summary: dict[str, Any]

    def losses(self, params, images, labels):
        """Of each image, in evaluation mode."""
        logits = self.logits(params, self.batch_stats, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def accuracies(self, params, batch_stats, images, labels):
        """Whether each image is classified as labelled."""
        return self.logits(params, batch_stats, images).argmax(-1) == labels

    def logits(self, params, batch_stats, images):
        """In evaluation mode."""
        variables = {"params": params, "batch_stats": batch_stats}
        images = self.training.prepare(images)
        return self.training.model.apply(variables, images, train=False)

    def reestimate(self, params, batch_stats, images, labels):
        """Running statistics after one more batch."""
        del labels
        _, updates = self.training.model.apply(
            {"params": params, "batch_stats": batch_stats},
            self.training.prepare(images),
            train=True,
            mutable="batch_stats",
        )
        return updates["batch_stats"]


def train(
    experiment: Experiment, dataset: data.Dataset, method: str, rho: float, seed: int
) -> Trained:
    """Trains a network, or finds it trained already."""
    told = {"rho": rho, "k": None, "alpha": None, **METHODS[method]}
    name = f"{method.lower()}-rho-{rho:g}-seed-{seed}"
    if told["optimizer"] == "base":
        told, name = {**told, "rho": None}, f"{method.lower()}-seed-{seed}"
    folder = experiment.runs / experiment.size / name
    config = dataclasses.replace(
        SIZES[experiment.size].config, **told, seed=seed, output=folder
    )
    training: Any = Training(config, dataset)
    summary = runs.run(config, training, folder)
    state = runs.final_state(training, folder)
    params = lb.eval_params(state.opt_state, state.params)
    return Trained(training, params, state.batch_stats, summary)


def load(experiment: Experiment) -> data.Dataset:
    """The dataset of an experiment."""
    return data.load(SIZES[experiment.size].config.dataset, experiment.data_dir)


def batches(examples: data.Examples, size: Size) -> list[tuple[np.ndarray, ...]]:
    """The first images with their labels, as the size wants them measured."""
    count = min(size.examples, len(examples.labels))
    return [
        tuple(array[start : min(start + size.batch_size, count)] for array in examples)
        for start in range(0, count, size.batch_size)
    ]
