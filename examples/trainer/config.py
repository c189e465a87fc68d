"""Settings of all training runs: from flags, from a file, and from a recipe."""

import argparse
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal
from typing import TypeVar

import jax.numpy as jnp
from pydantic import Field
from pydantic import NonNegativeFloat
from pydantic import NonNegativeInt
from pydantic import PositiveFloat
from pydantic import PositiveInt

from examples.trainer import command
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.paths import OutputFolder

Schedule = Literal["constant", "cosine", "step", "inverse-sqrt"]
Share = Annotated[float, Field(ge=0, lt=1)]
Seeds = Annotated[int, Field(ge=1, le=1000)]
Seed = Annotated[
    int, Field(ge=0, le=2_000_000_000)
]  # so that the last seed fits as well
Ascents = Annotated[int, Field(ge=0, le=1000)]


@settings
class Training(Settings):
    """What is trained, and how long.

    Attributes:
      epochs: passes over the training examples.
      batch_size: training examples in a step (in each minibatch, if they are switched),
        on all devices together.
      label_smoothing: share of each label spread over all classes.
      seed: seed of the initial weights, the order of the examples and their
        augmentation.
      seeds: number of runs, with seeds from `seed` upwards.
    """

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    label_smoothing: Share = 0.0
    seed: Seed = 0
    seeds: Seeds = 1


@settings
class Base(Settings):
    """The base optimizer and its learning rate.

    Attributes:
      base: base optimizer: sgd, adam, adamw or another Optax optimizer by name.
      learning_rate: peak learning rate of the base optimizer.
      schedule: schedule of the learning rate: constant, cosine (to 0), step (divided by
        10 every `drop_every` epochs) or inverse-sqrt (falling with the square root of
        the steps after the warm-up).
      drop_every: epochs from one drop of the step schedule to the next.
      warmup: epochs in which the learning rate grows to its peak.
      anneal: whether the schedule spans all phases, or each phase has its own schedule,
        which starts at the peak and spans that phase. The warm-up belongs to the first
        phase.
      momentum: momentum of sgd.
      nesterov: whether sgd's momentum is Nesterov's.
      betas: β₁ and β₂ of adam and its variants; Optax's defaults if not given.
      epsilon: ε of adam and its variants; Optax's default if not given.
      weight_decay: factor of the parameters that adamw and other optimizers with such
        an argument subtract, and that is added to the gradient for the others, such as
        sgd and adam.
    """

    base: str = "sgd"
    learning_rate: NonNegativeFloat = 0.02
    schedule: Schedule = "cosine"
    drop_every: PositiveInt = 50
    warmup: NonNegativeFloat = 0.0
    anneal: Literal["all", "each"] = "all"
    momentum: Share = 0.9
    nesterov: bool = False
    betas: tuple[Share, Share] | None = None
    epsilon: PositiveFloat | None = None
    weight_decay: NonNegativeFloat = 5e-4


@settings
class Optimizer(Settings):
    """The sharpness-aware optimizer around the base.

    Attributes:
      optimizer: optimizer around the base: sam, asam, multistep_sam, multistep_asam,
        lookbehind_sam, lookbehind_asam, gsam, wsam or friendly_sam; random_sam, a
        control that climbs in a random direction; or base for the base alone.
      rho: ρ, radius of an ascent step; the optimizer's default if not given.
      k: number of ascent steps; the optimizer's default if not given.
      alpha: α of Lookbehind (step of the slow weights): a number, adaptive or
        adaptive-per-tensor. α of GSAM: a number. The optimizer's default if not given.
      eta: η of ASAM; its default if not given.
      gamma: γ of WSAM, weight of the sharpness; its default if not given.
      sigma: σ of Friendly SAM, share of the average gradient that the ascent omits; its
        default if not given.
      decay: λ of Friendly SAM, decay of the average; its default if not given.
      average: whether multistep optimizers descend along the mean of the gradients.
      pullback: how a step of Lookbehind's slow weights changes the momentum and moments
        of the base: none, pullback (by α, with the weights) or reset.
      lookahead: steps between synchronizations of a Lookahead around the optimizer; 0
        for no Lookahead.
      lookahead_alpha: step of Lookahead's slow weights.
      m: size of the groups of m-SAM; by default the batch is one group.
      switch_minibatches: whether each inner step has its own minibatch.
      reuse_gradients: whether an ascent of Lookbehind reuses the previous gradient; if
        not, a step takes 2k gradients.
      phases: optimizers one after the other, in place of `optimizer`, as in 'base until
        0.8' 'sam until 1', where the numbers are shares of all steps.
    """

    optimizer: str = "lookbehind_sam"
    rho: NonNegativeFloat | None = None
    k: Ascents | None = None
    alpha: NonNegativeFloat | Literal["adaptive", "adaptive-per-tensor"] | None = None
    eta: NonNegativeFloat | None = None
    gamma: Share | None = None
    sigma: NonNegativeFloat | None = None
    decay: Share | None = None
    average: bool = False
    pullback: Literal["none", "pullback", "reset"] = "none"
    lookahead: NonNegativeInt = 0
    lookahead_alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    m: PositiveInt | None = None
    switch_minibatches: bool = False
    reuse_gradients: bool = True
    phases: tuple[str, ...] = ()


@settings
class Devices(Settings):
    """Devices and precision of the computation.

    Attributes:
      micro_batches: parts into which each gradient evaluation splits its batch.
      precision: precision of the computation; parameters and optimizer stay in fp32.
      mesh: all devices, as in data=8, or fsdp=8, or data=2 fsdp=4. All share the batch;
        those of fsdp also share the parameters and the optimizer's state. Only the
        first device if not given.
      distributed: whether this is one of several processes, started by Slurm, Open MPI
        or Kubernetes or on the hosts of a TPU, where JAX finds the others by itself.
    """

    micro_batches: PositiveInt = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    mesh: tuple[str, ...] = ()
    distributed: bool = False


@settings
class Files(Settings):
    """Files to read and write.

    Attributes:
      config: JSON file of such values, as a run saves it; flags override it.
      output: folder of the run. An existing run is resumed.
      save_every: steps from one checkpoint to the next; an epoch by default.
      keep: number of checkpoints to keep.
      log: where to write logs besides log.jsonl: tensorboard, wandb (Weights & Biases;
        WANDB_MODE=offline needs no account).
    """

    config: Path | None = None
    output: OutputFolder = Path("runs/latest")
    save_every: PositiveInt | None = None
    keep: PositiveInt = 2
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()


@settings
class RunConfig(Training, Base, Optimizer, Devices, Files):
    """Settings of all training runs."""

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the computation."""
        return jnp.dtype({"fp32": "float32", "bf16": "bfloat16"}[self.precision])

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Names of the optimizers, in the order in which they train."""
        names = tuple(phase.partition(" until ")[0] for phase in self.phases)
        return names or (self.optimizer,)

    @property
    def looks_behind(self) -> bool:
        """Whether a Lookbehind is among the optimizers."""
        return any(name.startswith("lookbehind") for name in self.optimizers)

    def of_recipe(self) -> dict[str, Any]:
        """Values that the recipe sets by optimizer, besides its fixed values."""
        return {}


Kind = TypeVar("Kind", bound=RunConfig)


def parse(
    kind: type[Kind],
    recipes: dict[str, dict[str, Any]],
    program: str,
    arguments: list[str],
) -> Kind:
    """Reads flags; they override the file, and the file the recipe.

    So `--help` shows the defaults of the recipe and the file, for the optimizers that
    the other flags name.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe")
    first.add_argument("--config", type=Path)
    named, _ = first.parse_known_args(arguments)
    file = {} if named.config is None else command.load(kind, named.config)
    name = named.recipe or file.get("recipe") or next(iter(recipes))
    recipe = {"recipe": name, **recipes.get(name, {})}

    def default(of_recipe: dict[str, Any]) -> Kind:
        values: dict[str, Any] = recipe | of_recipe | file | {"recipe": name}
        return kind(**values)

    others = [argument for argument in arguments if argument not in ("-h", "--help")]
    chosen = command.parse(kind, program, others, default({}))
    return command.parse(kind, program, arguments, default(chosen.of_recipe()))
