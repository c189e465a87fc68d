"""How large the experiments of the paper are: three sizes of each, in one table.

"smoke" shows in a minute that everything runs; its numbers mean nothing. "small" gives
two CPU cores an hour or a few, with real data and a network that can learn all of its
labels, since a climb has nothing to gain where a network underfits. "paper" is the
paper's own setting, or that of the code it builds on, for accelerators.
"""

import dataclasses
from typing import Any
from typing import Literal
from typing import NamedTuple

from benchmarks.evidence.noise import NOISY
from examples.images.config import Config
from examples.images.config import RECIPES
from examples.lifelong.config import Lifelong

Name = Literal["smoke", "small", "paper"]


class Setting(NamedTuple):
    """What all runs of a comparison have in common.

    Attributes:
      config: of every training.
      seeds: runs of each row.
      train: number of training examples, the first of the dataset; all if None.
      test: number of test examples.
      ks: numbers of ascent steps that pictures compare.
      rhos: radii that pictures compare.
      rho: radius of all other rows; the optimizer's default if None.
      rho_asam: the same for ASAM's variants.
    """

    config: Config
    seeds: int
    train: int | None = None
    test: int | None = None
    ks: tuple[int, ...] = (2, 5, 10)
    rhos: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2)
    rho: float | None = None
    rho_asam: float | None = None


class Flatness(NamedTuple):
    """Which networks are trained, and on how much they are measured.

    Attributes:
      config: of every training.
      rhos: radii to train with.
      rho: the one of them to measure more closely.
      seeds: networks of each method.
      examples: images to measure on, the first of the training or test set.
      batch_size: of the measurements; also the m of the m-sharpness.
      train: number of training examples, the first of the dataset; all if None.
    """

    config: Config
    rhos: tuple[float, ...]
    rho: float
    seeds: int
    examples: int
    batch_size: int
    train: int | None = None


class Size(NamedTuple):
    """The experiments at one size.

    Attributes:
      comparisons: the settings in which a question is asked.
      flatness: the networks that are measured.
      lifelong: the streams of tasks.
    """

    comparisons: tuple[Setting, ...]
    flatness: Flatness
    lifelong: tuple[Lifelong, ...]


def cifar(dataset: str, model: str) -> Setting:
    """The paper's Section 4.2."""
    options = {**RECIPES["cifar"], "dataset": dataset, "model": model, "rho": None}
    return Setting(Config(**{**options, "k": None, "alpha": None}), seeds=3)


SMOKE = Config(model="convnet-bn", epochs=1, learning_rate=0.1)
# Two hidden layers of 512 memorize 10,000 labels, in a minute without a climb.
SMALL = dataclasses.replace(NOISY, learning_rate=0.1)
SMALL_STREAM = Lifelong(dataset="fashion_mnist", images_per_task=1000, seeds=5)
# The networks and the numbers are those of Look-ahead MAML's code.
PAPER_STREAM: dict[str, Any] = {"classes_per_task": 5, "seeds": 5}
CIFAR_STREAM = Lifelong(dataset="cifar100", model="conv3", **PAPER_STREAM)
TINY_STREAM = Lifelong(
    dataset="folder:tiny-imagenet-200", model="conv4", memory=400, **PAPER_STREAM
)

SIZES: dict[Name, Size] = {
    "smoke": Size(
        comparisons=(
            Setting(SMOKE, seeds=2, train=256, test=128, ks=(2,), rhos=(0.02, 0.05)),
        ),
        flatness=Flatness(
            dataclasses.replace(SMOKE, batch_size=128),
            rhos=(0.02, 0.05),
            rho=0.05,
            seeds=1,
            examples=256,
            batch_size=128,
        ),
        lifelong=(
            Lifelong(
                images_per_task=40,
                inner_steps=2,
                methods=("sgd", "lookbehind_sam+replay", "cmaml_lookahead+replay"),
                seeds=2,
            ),
        ),
    ),
    "small": Size(
        # Wrong labels, which a climb keeps from being learned; radii that do so.
        comparisons=(
            Setting(
                dataclasses.replace(SMALL, label_noise=0.4),
                seeds=3,
                train=10_000,
                rhos=(0.03, 0.1, 0.3, 1.0),
                rho=0.2,
                rho_asam=2.0,
            ),
        ),
        flatness=Flatness(
            SMALL,
            rhos=(0.05, 0.1, 0.2, 0.4),
            rho=0.1,
            seeds=3,
            examples=4096,
            batch_size=128,
            train=10_000,
        ),
        lifelong=(
            SMALL_STREAM,
            dataclasses.replace(SMALL_STREAM, images_per_task=500, epochs=5),
        ),
    ),
    "paper": Size(
        comparisons=(
            cifar("cifar10", "resnet34"),
            cifar("cifar10", "wrn-28-2"),
            cifar("cifar100", "resnet50"),
            cifar("cifar100", "wrn-28-10"),
        ),
        flatness=Flatness(
            Config(**RECIPES["cifar"]),
            rhos=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
            rho=0.05,
            seeds=3,
            examples=50_000,
            batch_size=128,
        ),
        lifelong=tuple(
            dataclasses.replace(stream, epochs=epochs)
            for stream in (CIFAR_STREAM, TINY_STREAM)
            for epochs in (1, 10)
        ),
    ),
}
