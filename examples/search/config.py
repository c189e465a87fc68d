"""Settings of a search: its own, and those that all its trials share."""

import dataclasses
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from examples.images.config import Config
from examples.images.config import RECIPES
from examples.trainer import config as configuration
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.config import Seed
from examples.trainer.paths import InputFile
from examples.trainer.paths import OutputFolder

VALIDATION = 0.1


@settings
class Search(Settings):
    """Search hyperparameters of the image trainer.

    Flags after `--` are those of examples.images; all trials share them. A trial is
    scored by its accuracy on the validation images, a tenth of the training images
    unless --validation says otherwise. Several processes with the same command share
    the work, and an interrupted search resumes.

    Two commands:
      python -m examples.search --trials 20 -- --dataset digits --epochs 5
      python -m examples.search --recipe cifar --methods base sam lookbehind_sam

    Attributes:
      recipe: recipe of examples.images that the trials share.
      config: file of its settings, as a run saves it.
      methods: optimizers, as --optimizer takes them, each with --trials of its own; the
        optimizer of the shared settings if not given.
      space: what is searched, as in k=2,5 (choices), momentum=0.8:0.99 (a range) and
        rho=log:0.01:0.5 (a range on a logarithmic scale). Each method searches the
        parameters that it has.
      sampler: tpe (Bergstra et al. 2011), random, or grid, which takes every
        combination of choices once.
      trials: number of trials of each method; 20 if not given. A grid has one for each
        combination.
      prune: whether to end a trial whose validation accuracy is below the median of the
        trials before it, in the same epoch.
      seed: seed of the sampler. (--seed after `--` is the seed of all trials.)
      output: folder of the search.
    """

    recipe: str | None = None
    config: InputFile | None = None
    methods: tuple[str, ...] = ()
    space: tuple[str, ...] = (
        "learning-rate=log:0.01:0.3",
        "rho=log:0.01:0.5",
        "k=2,5",
        "alpha=0.2,0.5,0.8",
    )
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: PositiveInt | None = None
    prune: bool = True
    seed: Seed = 0
    output: OutputFolder = Path("runs/search")


def shared(search: Search, others: list[str], method: str | None) -> Config:
    """Settings of all trials of a method.

    Args:
      search: the search.
      others: flags of examples.images.
      method: the optimizer, if it isn't the one in the flags.

    Raises:
      ValueError: if a flag belongs to the search, or no image is left for validation.
    """
    arguments = list(others)
    if search.config is not None:
        arguments += ["--config", str(search.config)]
    if search.recipe is not None:
        arguments += ["--recipe", search.recipe]
    if method is not None:
        arguments += ["--optimizer", method]
    given = {argument.partition("=")[0] for argument in others}
    taken = {"--output"} | ({"--optimizer", "--phases"} if method else set())
    if given & taken:
        raise ValueError(
            f"{' and '.join(sorted(given & taken))} can't follow `--`: a search has an "
            "--output and --methods of its own"
        )
    config = configuration.parse(Config, RECIPES, "examples.images", arguments)
    if config.distributed:
        raise ValueError("--distributed is for single runs; start a search repeatedly")
    if config.validation > 0:
        return config
    if "--validation" in given:
        raise ValueError("--validation must be greater than 0: it scores the trials")
    return dataclasses.replace(config, validation=VALIDATION)
