"""The folder of a run: log, checkpoints, summary; what is killed goes on from there."""

from collections.abc import Callable
import contextlib
import json
import math
import os
from pathlib import Path
import shutil
import signal
import sys
import time
from typing import Any
from typing import Protocol
import warnings

import jax
from jax.experimental import multihost_utils
import numpy as np
import optax
import orbax.checkpoint as ocp
from tqdm import tqdm

from examples.trainer import command
from examples.trainer import config as configuration
from examples.trainer import meshes
from examples.trainer.config import RunConfig
from examples.trainer.optimizers import Phase
from examples.trainer.provenance import provenance

Record = dict[str, float]

# What may change from one start of a run to the next.
FREE = {
    "config",
    "data_dir",
    "distributed",
    "keep",
    "log",
    "mesh",
    "output",
    "save_every",
    "seeds",
    "test",
}


class Training(Protocol):
    """What a run does: pure functions of a state, which is a tree of arrays.

    Attributes:
      steps: number of steps.
      steps_per_epoch: number of steps in an epoch.
      examples_per_step: number of examples that a step takes.
      unit: what an example is, such as "images".
      goal: the name in `evaluate` of what should be large.
      phases: what trains, and until which step.
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
        """Takes the steps from `start` to `stop`, which are of one epoch."""
        ...

    def evaluate(self, state: Any) -> dict[str, float]:
        """What the slow weights achieve."""
        ...


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved."""


class Diverged(Exception):
    """The loss is no number any more; the last good checkpoint is kept."""


def main(
    train: Callable[[Any], None],
    kind: type[RunConfig],
    recipes: dict[str, dict[str, Any]],
    program: str,
    arguments: list[str] | None,
) -> None:
    """Calls `train` with the configuration that the command line tells.

    Args:
      train: from a configuration to nothing.
      kind: of the configuration.
      recipes: named defaults of it.
      program: name of the module that is run.
      arguments: those of the command line if None.

    Raises:
      SystemExit: with a line that says what is wrong, or that it was stopped.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        config = configuration.parse(kind, recipes, program, arguments)
        if config.distributed:
            meshes.join()
        train(config)
    except Stopped as stop:
        sys.exit(f"{stop}. Run the same command again to go on.")
    except (command.Invalid, ValueError, OSError, Diverged) as error:
        sys.exit(f"Error: {error}")


def run(
    config: RunConfig,
    training: Training,
    folder: Path,
    on_record: Callable[[Record], None] = lambda record: None,
) -> dict[str, Any]:
    """Trains in `folder`, from where a run there stands, and returns its summary.

    Args:
      config: of the run.
      training: what it does.
      folder: of the run.
      on_record: gets the record of each epoch that is trained here; what it raises ends
        the run.
    """
    claim(config, folder)
    started = time.perf_counter()
    save_every = config.save_every or training.steps_per_epoch
    with (
        checkpoints(folder, config.keep) as manager,
        Log(folder, "tensorboard" in config.log) as log,
        interruptions() as interrupted,
    ):
        state, records, seconds = restore(manager, training)
        step = int(state.step)
        path = folder / "summary.json"
        if step == training.steps and path.exists():  # as it was when it ended
            return json.loads(path.read_text())
        log.write(records)
        progress = tqdm(
            total=training.steps * training.examples_per_step,
            initial=step * training.examples_per_step,
            desc=folder.name,
            unit=f" {training.unit}",
            unit_scale=True,
            disable=jax.process_index() > 0,
        )
        stride = 1
        while step < training.steps:
            epoch = step // training.steps_per_epoch + 1
            epoch_end = epoch * training.steps_per_epoch
            save_at = (step // save_every + 1) * save_every
            stop = min(epoch_end, save_at)
            if not training.scans:  # about once a second
                stop = min(stop, step + stride)
            begun = time.perf_counter()
            state = training.advance(state, step, stop)
            sums = {name: float(value) for name, value in state.sums.items()}
            quick = time.perf_counter() - begun < 0.5
            progress.update((stop - step) * training.examples_per_step)
            step = stop
            taken = (step - 1) % training.steps_per_epoch + 1
            means = {name: value / taken for name, value in sums.items()}
            progress.set_postfix(
                {k: f"{means[k]:.4f}" for k in ("loss", "accuracy") if k in means}
            )
            if not math.isfinite(means["loss"]):
                raise Diverged(
                    f"the loss was {means['loss']} by step {step} (epoch {epoch}); the "
                    f"last good checkpoint is of step {manager.latest_step() or 0}. "
                    "Try a lower --learning-rate, or a lower --alpha times --k."
                )
            if step == epoch_end:
                records.append(
                    {
                        "epoch": epoch,
                        "step": step,
                        "learning_rate": float(np.asarray(training.schedule(step - 1))),
                        **means,
                        **training.evaluate(state),
                    }
                )
                log.append(records[-1])
                on_record(records[-1])
            asked, all_quick = agree(interrupted(), quick)
            stride = 2 * stride if all_quick else stride
            if step == save_at or step == training.steps or asked:
                so_far = seconds + time.perf_counter() - started
                save(manager, state, records, so_far)
            if asked and step < training.steps:
                manager.wait_until_finished()
                progress.close()
                raise Stopped(
                    f"stopped by {signal.Signals(asked).name} and saved at step {step}"
                )
        progress.close()
    seconds += time.perf_counter() - started
    return summarise(config, training, records, seconds, folder)


def agree(asked: int, quick: bool) -> tuple[int, bool]:
    """The same for all processes: a signal that one of them got; whether all are quick.

    They have to save and to stop at the same step.
    """
    if jax.process_count() == 1:
        return asked, quick
    of_all = multihost_utils.process_allgather(np.array([asked, not quick]))
    asked, slow = np.max(of_all, axis=0)
    return int(asked), not slow


def claim(config: RunConfig, folder: Path) -> None:
    """Makes the folder, or finds there a run of the same configuration."""
    path = folder / "config.json"
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_atomically(path, lambda partial: command.save(config, partial))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("claimed")
    theirs = json.loads(path.read_text())
    ours = command.as_json(config)
    differences = [
        f"  {name}: {theirs.get(name)!r} there, {ours.get(name)!r} here"
        for name in sorted(ours.keys() | theirs.keys())
        if name not in FREE and ours.get(name) != theirs.get(name)
    ]
    if differences:
        raise ValueError(
            f"{folder} holds a run of another configuration; give another "
            "--output, or delete it:\n" + "\n".join(differences)
        )


@contextlib.contextmanager
def checkpoints(folder: Path, keep: int):
    """Orbax's manager, which renames a checkpoint into place once it is whole."""
    manager = ocp.CheckpointManager(
        (folder / "checkpoints").absolute(),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=True,
        ),
    )
    try:
        try:
            yield manager
        finally:
            manager.close()
    except (ValueError, OSError) as error:  # by Orbax's storage, and by our own files
        if "No space left" not in str(error):
            raise
        raise OSError(
            f"the disk of {folder} is full: make space there and run the same command "
            "again. It goes on from the last whole checkpoint"
        ) from error


def save(
    manager: ocp.CheckpointManager, state: Any, records: list[Record], seconds: float
) -> None:
    """Writes state and log in the background."""
    if int(state.step) in manager.all_steps():
        return
    manager.save(
        int(state.step),
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            run=ocp.args.JsonSave({"records": records, "seconds": seconds}),
        ),
    )


def restore(
    manager: ocp.CheckpointManager, training: Training
) -> tuple[Any, list[Record], float]:
    """The newest checkpoint that can be read, or the start."""
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
        try:
            read: Any = manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(training.shapes),
                    run=ocp.args.JsonRestore(),
                ),
            )
            return read.state, read.run["records"], read.run["seconds"]
        except Exception as error:  # whatever a damaged file makes its reader raise
            warnings.warn(
                f"the checkpoint of step {step} can't be read and is deleted "
                f"({type(error).__name__}: {str(error).splitlines()[0]})",
                stacklevel=2,
            )
            manager.delete(step)
    if steps:
        warnings.warn("no checkpoint could be read: starting again", stacklevel=2)
    return training.init(), [], 0.0


def final_state(training: Training, folder: Path) -> Any:
    """The state with which a run in `folder` ended."""
    with checkpoints(folder, keep=1) as manager:
        return restore(manager, training)[0]


@contextlib.contextmanager
def interruptions():
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


class Log:
    """Records of the epochs, as lines of JSON, and for TensorBoard if asked."""

    def __init__(self, folder: Path, tensorboard: bool):
        """Writes to `folder`, if this is the first of several processes."""
        self.folder, self.tensorboard = folder, tensorboard
        self.writes = jax.process_index() == 0
        self.events: Any = None

    def __enter__(self) -> "Log":
        """Nothing is written yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves whole files."""
        if self.events is not None:
            self.events.close()

    def write(self, records: list[Record]) -> None:
        """Begins with what a checkpoint knows, and no more."""
        if not self.writes:
            return
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self.folder / "log.jsonl", lambda path: path.write_text(lines))
        if self.tensorboard:
            from tensorboardX import SummaryWriter

            shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
            self.events = SummaryWriter(str(self.folder / "tensorboard"))
            for record in records:
                self.show(record)

    def append(self, record: Record) -> None:
        """Adds an epoch."""
        if self.writes:
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            if self.tensorboard:
                self.show(record)

    def show(self, record: Record) -> None:
        """Adds an epoch for TensorBoard."""
        for name, value in record.items():
            self.events.add_scalar(name, value, int(record["step"]))
        self.events.flush()


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes beside the path, and renames."""
    partial = path.with_name(f"{path.name}.partial")
    write(partial)
    os.replace(partial, path)


def summarise(
    config: RunConfig,
    training: Training,
    records: list[Record],
    seconds: float,
    folder: Path,
) -> dict[str, Any]:
    """What came out, and what it depends on; saved as summary.json."""
    before = 0
    gradients = 0
    for phase in training.phases:
        gradients += (phase.until - before) * phase.gradients
        before = phase.until
    goals = [record[training.goal] for record in records]
    summary = {
        "config": command.as_json(config),
        **provenance(),
        "devices": math.prod(int(axis.partition("=")[2]) for axis in config.mesh),
        "parameters": sum(
            leaf.size for leaf in jax.tree.leaves(training.shapes.params)
        ),
        "gradient_evaluations": gradients,
        "wall_seconds": round(seconds, 1),
        f"final_{training.goal}": goals[-1],
        f"best_{training.goal}": max(goals),
    }
    text = json.dumps(summary, indent=1) + "\n"
    if jax.process_index() == 0:
        write_atomically(folder / "summary.json", lambda path: path.write_text(text))
    return summary
