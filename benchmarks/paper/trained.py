"""Networks trained by the methods that the paper compares, for what measures them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import optax

from benchmarks.paper import experiment
from benchmarks.paper.sizes import Flatness
from examples.images import data
from examples.images.training import Training
from examples.trainer import runs
import lookbehind_optax as lb

# What of a configuration makes a method; α is 1/k.
METHODS: dict[str, dict[str, Any]] = {
    "SGD": {"optimizer": "base"},
    "SAM": {"optimizer": "sam"},
    "Multistep-SAM": {"optimizer": "multistep_sam", "k": 2},
    "Lookbehind-SAM": {"optimizer": "lookbehind_sam", "k": 2, "alpha": 0.5},
    "Lookbehind-SAM, pullback": {
        "optimizer": "lookbehind_sam",
        "k": 2,
        "alpha": 0.5,
        "pullback": "pullback",
    },
}


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
        """The loss of each image, in evaluation mode."""
        logits = self.logits(params, self.batch_stats, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def accuracies(self, params, batch_stats, images, labels):
        """Whether each image is classified as labeled."""
        return self.logits(params, batch_stats, images).argmax(-1) == labels

    def logits(self, params, batch_stats, images):
        """Logits in evaluation mode."""
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


class Networks:
    """The networks of one size, each trained when it is first asked for.

    Attributes:
      size: what is trained, and how much is measured.
      dataset: that it is trained and measured on.
      revisions: of the code that trained them.
    """

    def __init__(self, size: Flatness, dataset: data.Dataset, folder: Path):
        """Keeps each training in its own subfolder."""
        self.size, self.dataset, self.folder = size, dataset, folder
        self.revisions: set[str] = set()

    def train(self, method: str, rho: float, seed: int) -> Trained:
        """Trains a network, or reads it if it is trained already."""
        options = {"rho": rho, "k": None, "alpha": None, **METHODS[method]}
        folder = method.lower().replace(", ", "-")
        name = f"{folder}-rho-{rho:g}-seed-{seed}"
        if options["optimizer"] == "base":
            options, name = {**options, "rho": None}, f"{folder}-seed-{seed}"
        config = dataclasses.replace(self.size.config, **options, seed=seed)
        training: Any
        training, summary = experiment.train(config, self.dataset, self.folder / name)
        self.revisions.add(summary["revision"])
        state = runs.final_state(training, self.folder / name)
        params = lb.eval_params(state.opt_state, state.params)
        return Trained(training, params, state.batch_stats, summary)

    def batches(self, examples: data.Examples) -> list[tuple[np.ndarray, ...]]:
        """The first images with their labels, as the size wants them measured."""
        first, size = [x[: self.size.examples] for x in examples], self.size.batch_size
        return [
            tuple(x[start : start + size] for x in first)
            for start in range(0, len(first[0]), size)
        ]
