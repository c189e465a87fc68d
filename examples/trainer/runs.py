"""A run from its start or last checkpoint to its end: loop, signals, summary."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import math
from pathlib import Path
import signal
import sys
import time
from typing import Any
from typing import Protocol

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from examples.trainer import command
from examples.trainer import config as configuration
from examples.trainer import folders
from examples.trainer import logs
from examples.trainer import meshes
from examples.trainer.checkpoints import Checkpoints
from examples.trainer.checkpoints import Saved
from examples.trainer.command import Stopped
from examples.trainer.config import RunConfig
from examples.trainer.logs import Record
from examples.trainer.optimizers import Phase
from examples.trainer.provenance import provenance


class Training(Protocol):
    """What a run does: pure functions of a state, which is a tree of arrays.

    Two more attributes are optional. `fingerprint` maps names of the data to digests:
    a run whose data changed isn't resumed. `files` maps names to texts that the run
    keeps in its folder.

    Attributes:
      steps: number of steps.
      steps_per_epoch: number of steps in an epoch.
      examples_per_step: number of examples that a step takes.
      unit: what an example is, such as "images".
      goal: the name in `evaluate` of the metric to maximize.
      phases: the optimizers, and the step at which each ends.
      schedule: the learning rate at a step.
      shapes: of the state, with their places.
      scans: whether several steps are one call.
    """

    unit: str
    goal: str
    steps: int
    steps_per_epoch: int
    examples_per_step: int
    phases: list[Phase]
    schedule: optax.Schedule
    shapes: Any
    scans: bool

    def init(self) -> Any:
        """The state before the first step; of fields `step`, `params` and `sums`."""
        ...

    def advance(self, state: Any, start: int, stop: int) -> Any:
        """Takes the steps from `start` to `stop`, within one epoch."""
        ...

    def evaluate(self, state: Any) -> dict[str, float]:
        """Metrics of the slow weights, finite if the weights are."""
        ...

    def conclude(self, state: Any) -> dict[str, float]:
        """Final measurements for the summary, after the training."""
        ...


class Diverged(FloatingPointError):
    """The loss is no longer finite; the last good checkpoint is kept."""


def main(
    train: Callable[[Any], None],
    kind: type[RunConfig],
    recipes: dict[str, dict[str, Any]],
    program: str,
    arguments: list[str] | None,
) -> None:
    """Calls `train` with the configuration of the command line.

    Args:
      train: from a configuration to nothing.
      kind: of the configuration.
      recipes: named defaults of it.
      program: name of the module that is run.
      arguments: those of the command line if None.

    Raises:
      SystemExit: after a line that says what is wrong, or that it was stopped.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    with command.explained():
        config = configuration.parse(kind, recipes, program, arguments)
        if config.distributed:
            meshes.join()
        folders.check(config.output, config.seeds)  # before any work
        train(config)


def run(
    config: RunConfig,
    training: Training,
    folder: Path,
    on_record: Callable[[Record], None] = lambda record: None,
) -> dict[str, Any]:
    """Trains in `folder`, resuming a run there, and returns its summary.

    Args:
      config: of the run.
      training: what it does.
      folder: of the run.
      on_record: gets the record of each epoch that is trained now, none if the run is
        finished; an exception from it ends the run.
    """
    fingerprint = getattr(training, "fingerprint", {})
    files = getattr(training, "files", {})
    summary, log = folder / "summary.json", folder / "log.jsonl"
    with (
        space(folder),
        folders.claimed(config, folder, fingerprint, files),
        Checkpoints(folder / "checkpoints", config.keep) as checkpoints,
    ):
        saved = checkpoints.restore(training.shapes)
        ended = saved is None or int(saved.state.step) == training.steps
        if ended and summary.exists():  # a finished run isn't changed
            goals = (f"final_{training.goal}", f"best_{training.goal}")
            return folders.read_json(summary, goals)
        if saved is None:
            if log.exists() and jax.process_index() == 0:
                folders.say(f"no checkpoint in {folder}: starting at the first step")
            saved = Saved(training.init(), [], 0.0)
        with logs.opened(config, folder, saved.records) as append:

            def log_record(record):
                append(record)
                on_record(record)

            loop = Loop(training, checkpoints, log_record, folder.name)
            saved = loop.train(saved, config.save_every or training.steps_per_epoch)
        return summarize(config, training, saved, summary)


def final_state(training: Training, folder: Path) -> Any:
    """The state with which a run in `folder` ended.

    Raises:
      ValueError: if it hasn't ended, or its last checkpoint is lost.
    """
    with (
        folders.locked(folder),
        Checkpoints(folder / "checkpoints", keep=1) as checkpoints,
    ):
        saved = checkpoints.restore(training.shapes)
    if saved is None or int(saved.state.step) != training.steps:
        raise ValueError(
            f"{folder} holds no checkpoint of the last step, {training.steps}; delete "
            "summary.json there and run the training again to get one"
        )
    return saved.state


class Loop:
    """The steps of a run, with the logging and saving between them."""

    def __init__(
        self,
        training: Training,
        checkpoints: Checkpoints,
        log: Callable[[Record], None],
        name: str,
    ):
        """Computes nothing yet.

        Args:
          training: what to do.
          checkpoints: where to save.
          log: takes the record of an epoch.
          name: of the run, for the progress bar.
        """
        self.training, self.checkpoints, self.log = training, checkpoints, log
        self.name = name

    def train(self, saved: Saved, save_every: int) -> Saved:
        """Trains from a saved state to the end, and saves that."""
        training, began = self.training, time.perf_counter()
        state, records, seconds = saved
        step, stride = int(state.step), 1
        with interruptions() as interrupted, self.progress(step) as progress:
            while step < training.steps:
                start, save_at = step, (step // save_every + 1) * save_every
                step = min(self.epoch_end(start), save_at)
                if not training.scans:  # about once a second
                    step = min(step, start + stride)
                called = time.perf_counter()
                state = training.advance(state, start, step)
                means = self.means(state, step)
                quick = time.perf_counter() - called < 0.5
                show(progress, (step - start) * training.examples_per_step, means)
                if step == self.epoch_end(start):
                    records.append(self.record(state, step, means))
                    self.log(records[-1])
                asked, all_quick = agree(interrupted(), quick)
                stride = 2 * stride if all_quick else stride
                so_far = seconds + time.perf_counter() - began
                saved = Saved(state, records, so_far)
                if step in (save_at, training.steps) or asked:
                    self.save(step, saved)
                if asked:  # even after the last step, as another run may follow
                    self.checkpoints.wait()
                    name = signal.Signals(asked).name
                    raise Stopped(f"stopped by {name} and saved at step {step}")
        self.checkpoints.confirm()  # by the last evaluation
        return saved

    def epoch_end(self, start: int) -> int:
        """The step with which the epoch of the next step ends."""
        length = self.training.steps_per_epoch
        return (start // length + 1) * length

    def progress(self, step: int) -> tqdm:
        """A progress bar at a given step."""
        each = self.training.examples_per_step
        return tqdm(
            total=self.training.steps * each,
            initial=step * each,
            desc=self.name,
            unit=f" {self.training.unit}",
            unit_scale=True,
            disable=jax.process_index() > 0,
        )

    def means(self, state: Any, step: int) -> dict[str, float]:
        """Means of the metrics over the steps of this epoch.

        Raises:
          Diverged: if the loss isn't finite.
        """
        taken = (step - 1) % self.training.steps_per_epoch + 1
        means = {name: float(value) / taken for name, value in state.sums.items()}
        if not math.isfinite(means["loss"]):
            raise self.diverged(f"the loss was {means['loss']}", step)
        self.checkpoints.confirm()
        return means

    def record(self, state: Any, step: int, means: dict[str, float]) -> Record:
        """The record at the end of an epoch.

        Raises:
          Diverged: if what is evaluated isn't finite.
        """
        achieved = self.training.evaluate(state)
        for name, value in achieved.items():
            if not math.isfinite(value):
                raise self.diverged(f"the {name.replace('_', ' ')} was {value}", step)
        return {
            "epoch": step // self.training.steps_per_epoch,
            "step": step,
            "learning_rate": float(np.asarray(self.training.schedule(step - 1))),
            **logs.finite(means),
            **achieved,
        }

    def save(self, step: int, saved: Saved) -> None:
        """Saves a state from which training can continue.

        Raises:
          Diverged: if its parameters aren't finite.
        """
        if not all_finite(saved.state.params):
            raise self.diverged("a parameter wasn't finite", step)
        self.checkpoints.save(step, saved)

    def diverged(self, what: str, step: int) -> Diverged:
        """The error to raise if training can't continue from a step."""
        good = self.checkpoints.reject()
        kept = (
            "there is no good checkpoint"
            if good is None
            else f"the last good checkpoint is of step {good}"
        )
        epoch = (step - 1) // self.training.steps_per_epoch + 1
        return Diverged(
            f"{what} by step {step} (epoch {epoch}); {kept}. "
            "Try a lower --learning-rate, or a lower --alpha times --k."
        )


def show(progress: tqdm, examples: int, means: dict[str, float]) -> None:
    """Moves a bar by a number of examples."""
    progress.update(examples)
    shown = {k: f"{means[k]:.4f}" for k in ("loss", "accuracy") if k in means}
    progress.set_postfix(shown)


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether no number in a tree is NaN or infinite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def agree(asked: int, quick: bool) -> tuple[int, bool]:
    """Agrees among processes on a signal to one of them, and on whether all are quick.

    They must save and stop at the same step.
    """
    if jax.process_count() == 1:
        return asked, quick
    of_all = multihost_utils.process_allgather(np.array([asked, not quick]))
    asked, slow = np.max(of_all, axis=0)
    return int(asked), not slow


@contextlib.contextmanager
def interruptions() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the signal that asked to stop, or 0."""
    asked = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [
        signal.signal(number, lambda number, _: asked.append(number))
        for number in signals
    ]
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def space(folder: Path) -> Iterator[None]:
    """Says what to do about a full disk, whichever library reports it."""
    try:
        yield
    except (ValueError, OSError) as error:
        if "No space left" not in str(error):
            raise
        raise OSError(
            f"the disk of {folder} is full: make space there and run the same command "
            "again. It resumes from the last whole checkpoint"
        ) from error


def summarize(
    config: RunConfig, training: Training, saved: Saved, path: Path
) -> dict[str, Any]:
    """The results, and what they depend on; saved as summary.json."""
    before = 0
    gradients = 0
    for phase in training.phases:
        gradients += (phase.until - before) * phase.gradients
        before = phase.until
    goals = [record[training.goal] for record in saved.records]
    summary = {
        "config": command.as_json(config),
        **provenance(),
        "devices": math.prod(int(axis.partition("=")[2]) for axis in config.mesh),
        "parameters": sum(
            leaf.size for leaf in jax.tree.leaves(training.shapes.params)
        ),
        "gradient_evaluations": gradients,
        "wall_seconds": round(saved.seconds, 1),
        f"final_{training.goal}": goals[-1],
        f"best_{training.goal}": max(goals),
        **logs.finite(training.conclude(saved.state)),
    }
    text = folders.as_text(summary)
    if jax.process_index() == 0:
        folders.write_text(path, text)
    return summary
