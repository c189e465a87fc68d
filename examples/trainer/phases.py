"""The steps of a training: phases that share one state, jitted or scanned."""

from collections.abc import Callable
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from examples.trainer import command
from examples.trainer import meshes
from examples.trainer.config import RunConfig
from examples.trainer.optimizers import make_base
from examples.trainer.optimizers import make_phases
from examples.trainer.optimizers import make_schedule
from examples.trainer.optimizers import Phase
import lookbehind_optax as lb

SEEN = ("loss", "accuracy", "perturbed_loss", "alpha", "grad_norm")


class Phased:
    """What every kind of training has in common; for the rest see `runs.Training`.

    A kind of training adds its `feed`, `make_state` and `pure_step`, and calls `plan`
    and `place` once it knows its examples and its network.

    Attributes:
      layout: of the devices.
      batch: shape of a step's examples, those of one minibatch last.
      examples_per_step: number of examples that a step takes.
      steps: number of steps.
      steps_per_epoch: number of steps in an epoch.
      phases: the optimizers, and the step at which each ends.
      schedule: the learning rate at a step.
      shapes: of the state's arrays, with their places.
      places: of the state's arrays.
      scans: whether several steps are one call.
      train_step: from a phase to its jitted step.
      scan: from a phase to several steps as one call.
    """

    unit: str
    feed: Any
    scans: bool

    def __init__(self, config: RunConfig):
        """Finds the devices, and what a step takes."""
        self.config, self.layout = config, meshes.layout(config.mesh)
        if config.batch_size % self.layout.devices:
            raise ValueError(
                f"--batch-size must be a multiple of the {self.layout.devices} devices "
                f"that share a batch; got {config.batch_size}"
            )
        check_parts(config)
        ks = {phase.k for phase in make_phases(config, make_base(config, 1), 1)}
        self.batch: tuple[int, ...] = (config.batch_size,)
        if config.switch_minibatches and ks != {0}:
            if len(ks) > 1:
                raise ValueError(
                    "--switch-minibatches needs one k in all --phases; "
                    f"got {', '.join(map(str, sorted(ks)))}"
                )
            self.batch = (*ks, config.batch_size)
        self.examples_per_step = math.prod(self.batch)
        # Belongs to this training, so that its programs are freed with it.
        self.train_step = functools.cache(self.make_step)
        self.scan = functools.cache(self.make_scan)

    def plan(self, examples: int) -> None:
        """Lays out steps, schedule and phases for a number of training examples."""
        config = self.config
        self.steps_per_epoch = examples // self.examples_per_step
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"--batch-size is too large: a step takes {self.examples_per_step} of "
                f"the {examples} training {self.unit}"
            )
        self.steps = config.epochs * self.steps_per_epoch
        if self.steps > command.INT32:
            raise ValueError(
                f"--epochs must be at most {command.INT32 // self.steps_per_epoch:,}, "
                f"so that 32 bits can count the steps; got {config.epochs}"
            )
        self.schedule = make_schedule(config, self.steps_per_epoch)
        base = make_base(config, self.schedule)
        self.phases = make_phases(config, base, self.steps_per_epoch)

    def place(self) -> None:
        """Finds the shapes of the state, and places for it."""
        self.shapes = self.layout.shapes(self.make_state)
        self.places = jax.tree.map(lambda leaf: leaf.sharding, self.shapes)

    def make_state(self) -> Any:
        """The state before the first step; of fields `step`, `params`, ..., `sums`."""
        raise NotImplementedError

    def init(self) -> Any:
        """The state before the first step, in its place on the devices."""
        return jax.jit(self.make_state, out_shardings=self.places)()

    def pure_step(self, phase: Phase) -> Callable[..., Any]:
        """A step of a phase, from state, arrays of the feed, and batch to state."""
        raise NotImplementedError

    def conclude(self, state: Any) -> dict[str, float]:
        """Final measurements, after the training."""
        return {}

    def advance(self, state: Any, start: int, stop: int) -> Any:
        """Takes the steps from `start` to `stop`, within one epoch."""
        while start < stop:
            phase = next(phase for phase in self.phases if start < phase.until)
            end = min(stop, phase.until)
            phase = phase._replace(until=0)  # no step depends on it
            if self.scans:
                batches = self.feed.stacked(start, end)
                state = self.scan(phase)(state, self.feed.arrays, batches)
            else:
                step = self.train_step(phase)
                for batch in self.feed.batches(start, end):
                    state = step(state, self.feed.arrays, batch)
            start = end
        return state

    def make_step(self, phase: Phase) -> Callable[..., Any]:
        """The jitted step of a phase."""
        return jax.jit(
            self.pure_step(phase), donate_argnums=0, out_shardings=self.places
        )

    def make_scan(self, phase: Phase) -> Callable[..., Any]:
        """Steps of a phase, without communication between device and host."""
        step = self.pure_step(phase)

        @functools.partial(jax.jit, donate_argnums=0, out_shardings=self.places)
        def scan(state, arrays, batches):
            def body(state, batch):
                return step(state, arrays, batch), None

            return jax.lax.scan(body, state, batches)[0]

        return scan

    def update(self, phase: Phase, loss_fn: Callable[..., Any]) -> Callable[..., Any]:
        """The library's step on a loss, as configured."""
        config = self.config
        return lb.make_step(
            loss_fn,
            phase.optimizer,
            has_aux=True,
            switch_minibatches=config.switch_minibatches and phase.k > 0,
            micro_batches=config.micro_batches,
            m=config.m,
            axis_name=None if config.m is None else "group",
        )

    def add(self, state: Any, out: lb.StepOutput) -> dict[str, jax.Array]:
        """The sums of this epoch, with the metrics of one more step."""
        seen = {
            "loss": out.loss,
            "accuracy": out.aux["accuracy"],
            "perturbed_loss": out.perturbed_loss,
            "alpha": out.alpha,
            "grad_norm": out.grad_norm,
        }
        begins = state.step % self.steps_per_epoch == 0
        return {
            name: jnp.where(begins, value, state.sums[name] + value)
            for name, value in seen.items()
        }

    @functools.cached_property
    def slow_weights(self) -> Callable[[Any], Any]:
        """The weights to evaluate; under a Lookahead, they aren't the parameters."""
        return jax.jit(lambda state: lb.eval_params(state.opt_state, state.params))


def check_parts(config: RunConfig) -> None:
    """Refuses groups and micro-batches that would leave examples over."""
    group = config.m or config.batch_size
    if config.batch_size % group:
        raise ValueError(
            f"--m must divide the --batch-size, {config.batch_size}; got {group}"
        )
    if group % config.micro_batches:
        whole = "--batch-size" if config.m is None else "--m"
        raise ValueError(
            f"--micro-batches must divide the {whole}, {group}; "
            f"got {config.micro_batches}"
        )


def no_sums() -> dict[str, jax.Array]:
    """The sums that `add` starts with."""
    return dict.fromkeys(SEEN, jnp.float32(0.0))
