"""Settings of lifelong learning."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic import NonNegativeFloat
from pydantic import PositiveFloat
from pydantic import PositiveInt

from examples.images.models import MODELS
from examples.lifelong.methods import METHODS
from examples.trainer.command import among
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.config import Seed
from examples.trainer.paths import DataFolder
from examples.trainer.paths import OutputFolder


@settings
class Lifelong(Settings):
    """Learn a stream of tasks with every method, and compare.

    By default, there are five tasks of two of scikit-learn's digits each. The output
    folder gets the table, the plot of accuracy by task, and all accuracies as JSON.

    Two commands:
      python -m examples.lifelong --methods sgd sam+replay --seeds 5
      python -m examples.lifelong --dataset cifar100 --classes-per-task 5 --model conv3

    Attributes:
      dataset: digits (needs no network); folder:PATH, PATH.npz or hf:PATH, with
        images of one size; or one of TFDS that fits into memory: cifar100,
        fashion_mnist, ...
      data_dir: folder of datasets that TFDS has prepared; missing ones are prepared
        there, which needs TensorFlow. TFDS's own folder by default.
      classes_per_task: number of classes in each task, a divisor of the dataset's. The
        order of the classes depends on the seed.
      images_per_task: training images of each task, drawn by seed; all by default.
      model: network, a name in examples/images/models.py, without BatchNorm or
        dropout. conv3 and conv4 are those of Look-ahead MAML.
      methods: what to compare, such as sgd lookbehind_sam+replay
        cmaml_lookahead+replay; all of examples/lifelong/methods.py if not given.
      epochs: passes over each task. Only the first one fills the memory.
      batch_size: number of new images in a step.
      glances: steps on each batch, as Look-ahead MAML's code calls them. Each has other
        images from the memory, which gets the batch after the first one.
      replay_size: number of images that replay adds to a step, or all in the memory if
        it has fewer.
      memory: number of images in the replay memory.
      learning_rate: learning rate of SGD, which all methods are based on.
      meta_learning_rate: learning rate of C-MAML, in inner and outer steps.
      inner_steps: number of C-MAML's inner steps, each on one part of the batch.
      clip: norm to which SGD clips its gradients; in C-MAML's inner steps, the bound to
        which each entry is clipped. Both as in the code of Look-ahead MAML.
      rho: ρ, radius of an ascent step.
      k: number of ascent steps of Multistep-SAM and Lookbehind; steps of Lookahead
        between synchronizations.
      alpha: α, step of the slow weights of Lookbehind and Lookahead.
      seed: sets the classes' order, the initial weights, the order of the images and
        the memory.
      seeds: runs of each method, with seeds from --seed upwards; 2 to 1000.
      output: folder for the results. The same command continues there, from the last
        seed; other settings, but for --methods and --seeds, are refused.
    """

    dataset: str = "digits"
    data_dir: DataFolder | None = None
    classes_per_task: Annotated[int, Field(ge=2)] = 2
    images_per_task: PositiveInt | None = None
    model: Annotated[str, among(MODELS)] = "conv3-narrow"
    methods: tuple[Annotated[str, among(METHODS)], ...] = ()
    epochs: PositiveInt = 1
    batch_size: PositiveInt = 10
    glances: PositiveInt = 1
    replay_size: PositiveInt = 10
    memory: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    learning_rate: NonNegativeFloat = 0.03
    meta_learning_rate: NonNegativeFloat = 0.075
    inner_steps: PositiveInt = 5
    clip: PositiveFloat = 2.0
    rho: NonNegativeFloat = 0.05
    k: Annotated[int, Field(ge=1, le=1000)] = 2
    alpha: NonNegativeFloat = 0.5
    seed: Seed = 0
    seeds: Annotated[int, Field(ge=2, le=1000)] = 3  # so that there is a spread to show
    output: OutputFolder = Path("runs/lifelong")


def check(config: Lifelong) -> None:
    """Refuses inconsistent numbers.

    Raises:
      ValueError: if the memory can't fill a batch, or C-MAML can't split one.
    """
    methods = [METHODS[name] for name in config.methods or METHODS]
    replay = any(method.replay for method in methods)
    if replay and config.memory < config.replay_size:
        raise ValueError(
            f"--memory must hold at least the {config.replay_size} images of "
            f"--replay-size; got {config.memory}"
        )
    meta = any(method.meta for method in methods)
    if meta and config.batch_size % config.inner_steps:
        raise ValueError(
            f"--inner-steps must divide the --batch-size, {config.batch_size}, a part "
            f"for each step; got {config.inner_steps}"
        )
