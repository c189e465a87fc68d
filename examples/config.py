"""What a training run is told: its configuration, and recipes of the literature."""

import dataclasses
import json
from pathlib import Path
from typing import Any
from typing import Literal
from typing import TypeVar

import jax.numpy as jnp
import tyro

Recipe = Literal["digits", "cifar", "official", "asam", "imagenet", "vit"]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What all training runs are told.

    Attributes:
      config: JSON file of such values, as a run saves it; flags override it.
      epochs: passes over the training examples.
      batch_size: training examples in a step (of each minibatch, where they are
        switched), on all devices together.
      label_smoothing: share of each label spread over all classes.
      base: base optimizer, sgd, adam, adamw or another of Optax by name.
      learning_rate: of the base optimizer, at its peak.
      schedule: of the learning rate, "constant", "cosine" (to 0), "step" (divided by
        10 every `drop_every` epochs) or "inverse-sqrt" (falling with the square root
        of the steps after the warm-up).
      drop_every: epochs from one drop of the "step" schedule to the next.
      warmup: epochs in which the learning rate grows to its peak.
      momentum: of sgd.
      nesterov: whether sgd's momentum is Nesterov's.
      betas: β₁ and β₂ of adam and its kin; those of Optax if not given.
      epsilon: ε of adam and its kin; that of Optax if not given.
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
      phases: optimizers that take turns, in place of `optimizer`. Two of them are
        'base until 0.8' 'sam until 1', where the numbers are shares of all steps.
      micro_batches: parts into which each gradient evaluation splits its batch.
      precision: of the computation; parameters and optimizer stay in fp32.
      mesh: all devices, as in data=8, or fsdp=8, or data=2 fsdp=4. They share the
        batch, and those of fsdp also the parameters and the optimizer's state. The
        first device alone if not given.
      distributed: whether this is one process of several, started by Slurm, Open MPI
        or Kubernetes or on the hosts of a TPU, where JAX finds the others by itself.
      seed: of the initial weights, the order of the examples and their augmentation.
      seeds: number of runs, with seeds from `seed` upwards.
      output: folder of the run. A run that is there already is continued.
      save_every: steps from one checkpoint to the next; an epoch by default.
      keep: number of checkpoints to keep.
      tensorboard: whether to write logs for TensorBoard, too.
    """

    config: Path | None = None
    epochs: int = 20
    batch_size: int = 64
    label_smoothing: float = 0.0
    base: str = "sgd"
    learning_rate: float = 0.02
    schedule: Literal["constant", "cosine", "step", "inverse-sqrt"] = "cosine"
    drop_every: int = 50
    warmup: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] | None = None
    epsilon: float | None = None
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
    precision: Literal["fp32", "bf16"] = "fp32"
    mesh: tuple[str, ...] = ()
    distributed: bool = False
    seed: int = 0
    seeds: int = 1
    output: Path = Path("runs/latest")
    save_every: int | None = None
    keep: int = 2
    tensorboard: bool = False

    @property
    def dtype(self) -> jnp.dtype:
        """Of the computation."""
        return jnp.dtype({"fp32": "float32", "bf16": "bfloat16"}[self.precision])


@dataclasses.dataclass(frozen=True)
class Images:
    """What an image classifier is made of.

    Attributes:
      recipe: named defaults for all the rest; their sources are in examples/config.py.
      dataset: digits (needs no network), or an image-classification dataset of TFDS:
        cifar10, cifar100, fashion_mnist, imagenet2012, ...
      data_dir: folder of datasets that TFDS has prepared; where they are downloaded to
        if they aren't there. TFDS's own by default.
      model: network, a name in examples/models.py.
      pretrained: file of a pretrained ViT, in Hugging Face's names and the safetensors
        format. Images are then normalised as it expects them, by 0.5.
      image_size: height and width to which images are resized (or, if they differ in
        size, to which random crops of them are; 224 if not given).
      augment: random crops of the images, padded by 4, and horizontal flips; "auto" is
        "yes" for color images.
    """

    recipe: Recipe = "digits"
    dataset: str = "digits"
    data_dir: Path | None = None
    model: str = "convnet"
    pretrained: Path | None = None
    image_size: int | None = None
    augment: Literal["auto", "yes", "no"] = "auto"


@dataclasses.dataclass(frozen=True)
class Config(RunConfig, Images):  # whose fields come first
    """Train an image classifier with any optimizer of this library.

    Without arguments, a small network is trained on scikit-learn's digits. The folder
    of the run gets its configuration, log, plots, summary and checkpoints; a run that
    is there already is continued.
    """


# Each overrides defaults of Config; flags override both.
#
# The radii, k and adaptive α of Lookbehind are those which the official code's README
# runs; for a fixed α, it says that the paper tried 0.2, 0.5 and 0.8.
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
        "rho": 0.05,
        "k": 2,
        "alpha": "adaptive",
    },
    # example_cifar.py of the official code, whose weight decay isn't the paper's.
    "official": {
        "dataset": "cifar10",
        "model": "resnet34",
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "step",
        "drop_every": 50,
        "weight_decay": 5e-4,
        "rho": 0.05,
        "k": 2,
        "alpha": "adaptive",
    },
    # Kwon et al. 2021 (ASAM), Section 5: cosine schedule, label smoothing 0.1, weight
    # decay 5e-4; the stronger recipe of Mordido et al. 2024, Table 8.
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
    # Mordido et al. 2024, Section 4.2: SGD, learning rate divided by 10 every 30
    # epochs.
    "imagenet": {
        "dataset": "imagenet2012",
        "model": "resnet18-imagenet",
        "epochs": 90,
        "batch_size": 400,
        "learning_rate": 0.1,
        "schedule": "step",
        "drop_every": 30,
        "weight_decay": 1e-4,
        "rho": 0.05,
        "k": 2,
        "alpha": "adaptive",
    },
    # Mordido et al. 2024, Section 4.2: a ViT-B/16 fine-tuned by SGD. Schedule and
    # weight decay are those of Dosovitskiy et al. 2021 (ViT), Appendix B.1.1. Needs
    # --pretrained.
    "vit": {
        "dataset": "imagenet2012",
        "model": "vit-b16",
        "epochs": 15,
        "batch_size": 450,
        "learning_rate": 0.001,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "rho": 0.05,
        "k": 2,
        "alpha": "adaptive",
    },
}


@dataclasses.dataclass(frozen=True)
class Texts:
    """What a translator is made of.

    Attributes:
      recipe: named defaults for all the rest; their sources are in examples/config.py.
      train: source and target to learn from.
      valid: source and target that are translated after each epoch.
      test: source and target that are translated in the end.
      vocabulary: number of subwords, of both languages together.
      max_length: most subwords in a sentence. Longer pairs aren't trained on, and
        longer sources are cut.
      layers: of the encoder, and as many of the decoder.
      width: of the tokens.
      heads: attention heads.
      hidden: width inside the feed-forward networks.
      dropout: rate.
    """

    recipe: Literal["small", "paper"] = "small"
    train: tuple[Path, Path] | None = None
    valid: tuple[Path, Path] | None = None
    test: tuple[Path, Path] | None = None
    vocabulary: int = 4000
    max_length: int = 32
    layers: int = 2
    width: int = 128
    heads: int = 4
    hidden: int = 512
    dropout: float = 0.1


@dataclasses.dataclass(frozen=True)
class TranslationConfig(RunConfig, Texts):  # whose fields come first
    """Train a Transformer to translate, with any optimizer of this library.

    It learns from a pair of text files and is validated with another: files of one
    sentence a line, plain or compressed (.gz), line i of the one being the translation
    of line i of the other. The folder of the run gets its configuration, subwords, log,
    plots, summary, translations and checkpoints; a run that is there already is
    continued.
    """

    epochs: int = 5
    batch_size: int = 32
    label_smoothing: float = 0.1
    base: str = "adam"
    betas: tuple[float, float] | None = (0.9, 0.98)
    epsilon: float | None = 1e-9
    learning_rate: float = 2e-3
    schedule: Literal["constant", "cosine", "step", "inverse-sqrt"] = "inverse-sqrt"
    warmup: float = 1.0
    weight_decay: float = 0.0
    switch_minibatches: bool = True


# Each overrides defaults of TranslationConfig; flags override both.
TRANSLATION_RECIPES: dict[str, dict[str, Any]] = {
    # Multi30k's 29,000 pairs take 21 minutes of CPU time.
    "small": {},
    # Mordido et al. 2024, Section 6.2: 12 layers, Adam, label smoothing, inverse-sqrt
    # schedule after a warm-up, a minibatch for each inner step and two gradients of it.
    # Sizes, dropout, smoothing, Adam's β and ε, and the peak of the learning rate,
    # which is 1/√(512·4000), are those of the base model of Vaswani et al. 2017,
    # Table 3 and Section 5. They warm up over 4000 steps, which is about 6 epochs of
    # 160,000 pairs; tell --warmup for texts of other sizes.
    "paper": {
        "vocabulary": 10_000,
        "max_length": 128,
        "layers": 6,
        "width": 512,
        "heads": 8,
        "hidden": 2048,
        "epochs": 50,
        "batch_size": 128,
        "learning_rate": 7e-4,
        "warmup": 6.0,
        "rho": 0.05,
        "k": 2,
        "alpha": "adaptive",
        "reuse_gradients": False,
    },
}

Kind = TypeVar("Kind", bound=RunConfig)


def parse(
    kind: type[Kind],
    recipes: dict[str, dict[str, Any]],
    program: str,
    arguments: list[str],
) -> Kind:
    """Reads flags; they override the file, and the file the recipe."""
    named: dict[str, Any] = {"prog": f"python -m {program}"}
    given: Any = tyro.cli(kind, args=arguments, **named)
    if given.config is not None:
        arguments = flags(read(given.config)) + arguments
        given = tyro.cli(kind, args=arguments, **named)
    recipe = kind(**recipes[given.recipe])
    return tyro.cli(kind, args=arguments, default=recipe, **named)


def read(path: Path) -> dict[str, Any]:
    """Values of a file that `save` wrote."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"--config must be a file of JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"--config must hold an object of flags; {path} doesn't")
    return values


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


def save(config: RunConfig, path: Path) -> None:
    """Writes what `--config` reads."""
    values = dataclasses.asdict(dataclasses.replace(config, config=None))
    path.write_text(json.dumps(values, indent=1, default=str) + "\n")
