"""What lifelong learning is told."""

import dataclasses
from pathlib import Path

from examples.images.models import MODELS
from examples.lifelong.methods import METHODS


@dataclasses.dataclass(frozen=True)
class Lifelong:
    """Learn a stream of tasks with every method, and compare.

    Without arguments, these are five tasks of two of scikit-learn's digits. The output
    folder gets the table, the plot of accuracy by task, and all accuracies as JSON.

    Attributes:
      dataset: digits (needs no network); folder:PATH, PATH.npz or hf:PATH, whose
        images are of one size; or one of TFDS that fits the memory: cifar100,
        fashion_mnist, ...
      data_dir: folder of datasets that TFDS has prepared; where it prepares them if
        they aren't there, which takes TensorFlow. TFDS's own by default.
      classes_per_task: in each task; a divisor of the number of classes, which a seed
        puts in an order of its own.
      images_per_task: training images of each task, drawn by seed; all by default.
      model: network, a name in examples/images/models.py, without BatchNorm or
        dropout. conv3
        and conv4 are those of Look-ahead MAML.
      methods: what to compare, such as sgd lookbehind_sam+replay
        cmaml_lookahead+replay; all of `METHODS` if not given.
      epochs: passes over each task. Only the first one fills the memory.
      batch_size: new images in a step.
      replay_size: images that replay adds to a step, as far as the memory has them.
      memory: its capacity in images.
      learning_rate: of SGD, which all methods are based on.
      meta_learning_rate: of C-MAML, in inner and outer steps.
      inner_steps: of C-MAML, each on its part of the batch.
      clip: norm to which SGD clips its gradients; in C-MAML's inner steps, the size to
        which each entry is clipped. Both as in the code of Look-ahead MAML.
      rho: ρ, radius of an ascent step.
      k: number of ascent steps of Multistep-SAM and Lookbehind; steps of Lookahead
        between synchronisations.
      alpha: α, step of the slow weights of Lookbehind and Lookahead.
      seed: of the classes' order, the initial weights, the order of the images and the
        memory.
      seeds: runs of each method, with seeds from `seed` upwards; at least 2.
      output: folder of results.
    """

    dataset: str = "digits"
    data_dir: Path | None = None
    classes_per_task: int = 2
    images_per_task: int | None = None
    model: str = "conv3-narrow"
    methods: tuple[str, ...] = ()
    epochs: int = 1
    batch_size: int = 10
    replay_size: int = 10
    memory: int = 200
    learning_rate: float = 0.03
    meta_learning_rate: float = 0.075
    inner_steps: int = 5
    clip: float = 2.0
    rho: float = 0.05
    k: int = 2
    alpha: float = 0.5
    seed: int = 0
    seeds: int = 3
    output: Path = Path("runs/lifelong")


def check(config: Lifelong) -> None:
    """Refuses what can't be run, before anything is.

    Raises:
      ValueError: if a method or the network is unknown, or a number doesn't fit.
    """
    unknown = [name for name in config.methods if name not in METHODS]
    if unknown:
        raise ValueError(
            f"methods must be of {', '.join(METHODS)}; got {', '.join(unknown)}"
        )
    if config.model not in MODELS:
        raise ValueError(
            f"model must be one of {', '.join(MODELS)}; got {config.model}"
        )
    if config.seeds < 2:
        raise ValueError(
            "seeds must be at least 2, so that there is a spread to show; "
            f"got {config.seeds}"
        )
    for name in ("epochs", "batch_size", "replay_size", "inner_steps"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1; got {getattr(config, name)}")
    if config.memory < config.replay_size:
        raise ValueError(
            f"memory must hold at least the {config.replay_size} images of "
            f"replay_size; got {config.memory}"
        )
    if config.batch_size % config.inner_steps:
        raise ValueError(
            f"inner_steps must divide the batch_size of {config.batch_size}, a part "
            f"for each step; got {config.inner_steps}"
        )
    if config.images_per_task is not None and config.images_per_task < 1:
        raise ValueError(
            f"images_per_task must be at least 1; got {config.images_per_task}"
        )
