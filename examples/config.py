"""What a training run is told: its configuration, and recipes of the literature."""

import dataclasses
import json
from pathlib import Path
from typing import Any
from typing import Literal

import tyro


@dataclasses.dataclass(frozen=True)
class Config:
    """Train an image classifier with any optimizer of this library.

    Without arguments, a small network is trained on scikit-learn's digits. The folder
    of the run gets its configuration, log, plots, summary and checkpoints; a run that
    is there already is continued.

    Attributes:
      recipe: named defaults for what follows; their sources are in examples/config.py.
      config: JSON file of such values, as a run saves it; flags override it.
      dataset: digits (needs no network), or an image-classification dataset of TFDS:
        cifar10, cifar100, fashion_mnist, ...
      data_dir: folder of datasets that TFDS has prepared; where they are downloaded to
        if they aren't there. TFDS's own by default.
      model: network, a name in examples/models.py.
      epochs: passes over the training images.
      batch_size: training images in a step (of each minibatch, where they are
        switched).
      augment: random crops of the images, padded by 4, and horizontal flips; "auto" is
        "yes" for color images.
      label_smoothing: share of each label spread over all classes.
      base: base optimizer, sgd, adam, adamw or another of Optax by name.
      learning_rate: of the base optimizer, at its peak.
      schedule: of the learning rate, "constant", "cosine" (to 0) or "step" (divided by
        10 every `drop_every` epochs).
      drop_every: epochs from one drop of the "step" schedule to the next.
      warmup: epochs in which the learning rate grows to its peak.
      momentum: of sgd.
      nesterov: whether sgd's momentum is Nesterov's.
      weight_decay: factor of the parameters that sgd and adam add to the gradient, and
        that adamw and other optimizers with such an argument subtract.
      optimizer: what wraps the base optimizer, a name of this library (sam,
        lookbehind_sam, ...), or "base" for nothing.
      rho: ρ, radius of an ascent step; the optimizer's default if not given.
      k: number of ascent steps; the optimizer's default if not given.
      alpha: α, step of the slow weights, a number, "adaptive" or
        "adaptive-per-tensor"; the optimizer's default if not given.
      eta: η of ASAM; its default if not given.
      average: whether multistep optimizers descend along the mean of the gradients.
      lookahead: steps between synchronisations of a Lookahead around it all; 0 for
        none.
      lookahead_alpha: step of Lookahead's slow weights.
      m: size of the groups of m-SAM; by default the batch is one group.
      switch_minibatches: whether each inner step has a minibatch of its own.
      reuse_gradients: whether an ascent reuses the gradient met before it; without,
        a step takes 2k gradients.
      phases: changes of the optimizer half way, such as [base until 0.8, sam until 1];
        the shares are of all steps. In place of `optimizer`.
      micro_batches: parts into which each gradient evaluation splits its batch.
      precision: compute dtype, "float32" or "bfloat16".
      seed: of the initial weights, the order of the images and their augmentation.
      seeds: number of runs, with seeds from `seed` upwards.
      output: folder of the run. A run that is there already is continued.
      save_every: steps from one checkpoint to the next; an epoch by default.
      keep: number of checkpoints to keep.
    """

    recipe: Literal["digits", "cifar", "official", "asam"] = "digits"
    config: Path | None = None
    dataset: str = "digits"
    data_dir: Path | None = None
    model: str = "convnet"
    epochs: int = 20
    batch_size: int = 64
    augment: Literal["auto", "yes", "no"] = "auto"
    label_smoothing: float = 0.0
    base: str = "sgd"
    learning_rate: float = 0.05
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    drop_every: int = 50
    warmup: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    optimizer: str = "lookbehind_sam"
    rho: float | None = None
    k: int | None = None
    alpha: float | str | None = None
    eta: float | None = None
    average: bool = False
    lookahead: int = 0
    lookahead_alpha: float = 0.5
    m: int | None = None
    switch_minibatches: bool = False
    reuse_gradients: bool = True
    phases: tuple[str, ...] = ()
    micro_batches: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    seeds: int = 1
    output: Path = Path("runs/latest")
    save_every: int | None = None
    keep: int = 2


# Each overrides defaults of Config; flags override both.
RECIPES: dict[str, dict[str, Any]] = {
    # A minute on two CPU cores.
    "digits": {},
    # Mordido et al. 2024, Section 4.2: SGD, learning rate divided by 10 every 50
    # epochs, weight decay 1e-4.
    "cifar": {
        "dataset": "cifar10",
        "model": "resnet34",
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "step",
        "drop_every": 50,
        "weight_decay": 1e-4,
    },
    # The defaults of example_cifar.py in the official code, which differ from the
    # paper in the weight decay, and in rho, which is ASAM's.
    "official": {
        "dataset": "cifar10",
        "model": "resnet34",
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "step",
        "drop_every": 50,
        "weight_decay": 5e-4,
    },
    # Kwon et al. 2021 (ASAM), Section 5: cosine schedule, label smoothing 0.1, weight
    # decay 5e-4.
    "asam": {
        "dataset": "cifar10",
        "model": "wrn-16-8",
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "optimizer": "asam",
    },
}


def parse(arguments: list[str]) -> Config:
    """Reads flags; they override the file, and the file the recipe."""
    program: dict[str, Any] = {"prog": "python -m examples.train"}
    given = tyro.cli(Config, args=arguments, **program)
    if given.config is not None:
        arguments = flags(json.loads(given.config.read_text())) + arguments
        given = tyro.cli(Config, args=arguments, **program)
    recipe = Config(**RECIPES[given.recipe])
    return tyro.cli(Config, args=arguments, default=recipe, **program)


def flags(values: dict[str, Any]) -> list[str]:
    """The flags that give these values."""
    made = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            made += [f"--{flag}" if value else f"--no-{flag}"]
        elif isinstance(value, (list, tuple)):
            made += [f"--{flag}", *map(str, value)]
        else:
            made += [f"--{flag}", str(value)]
    return made


def save(config: Config, path: Path) -> None:
    """Writes what `--config` reads."""
    values = dataclasses.asdict(dataclasses.replace(config, config=None))
    path.write_text(json.dumps(values, indent=1, default=str) + "\n")
