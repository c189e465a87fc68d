"""The folder of a run: log, checkpoints, summary; what is killed goes on from there."""

from collections.abc import Callable
import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
from pathlib import Path
import signal
import subprocess
import time
from typing import Any
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
from tqdm import tqdm

from examples import config as configuration
from examples.config import Config
from examples.data import Dataset
from examples.training import SEEN
from examples.training import State
from examples.training import Training

Record = dict[str, float]

# What may change from one start of a run to the next.
FREE = {"config", "data_dir", "output", "seeds", "keep", "save_every"}


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved."""


class Diverged(Exception):
    """The loss is no number any more; the last good checkpoint is kept."""


def run(config: Config, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Trains in `folder`, from where a run there stands, and returns its summary."""
    claim(config, folder)
    training = Training(config, dataset)
    started = time.perf_counter()
    save_every = config.save_every or training.steps_per_epoch
    with checkpoints(folder, config.keep) as manager, interruptions() as interrupted:
        state, records, seconds = restore(manager, training)
        step = int(state.step)
        write_log(folder, records)
        progress = tqdm(
            total=training.steps * training.images_per_step,
            initial=step * training.images_per_step,
            desc=folder.name,
            unit=" images",
            unit_scale=True,
        )
        stride = 1
        while step < training.steps:
            epoch_end = (
                step // training.steps_per_epoch + 1
            ) * training.steps_per_epoch
            save_at = (step // save_every + 1) * save_every
            stop = min(epoch_end, save_at)
            if not training.scans:  # about once a second
                stop = min(stop, step + stride)
            begun = time.perf_counter()
            state = training.advance(state, step, stop)
            sums = {name: float(value) for name, value in state.sums.items()}
            stride = 2 * stride if time.perf_counter() - begun < 0.5 else stride
            progress.update((stop - step) * training.images_per_step)
            step = stop
            taken = (step - 1) % training.steps_per_epoch + 1
            means = {name: value / taken for name, value in sums.items()}
            progress.set_postfix(
                loss=f"{means['loss']:.4f}", accuracy=f"{means['accuracy']:.4f}"
            )
            if not math.isfinite(means["loss"]):
                raise Diverged(
                    f"the loss was {means['loss']} by step {step} (epoch "
                    f"{(step - 1) // training.steps_per_epoch + 1}); the last good "
                    f"checkpoint is of step {manager.latest_step() or 0}. Try a lower "
                    "--learning-rate, or a lower --alpha times --k."
                )
            if step == epoch_end:
                records.append(
                    {
                        "epoch": step // training.steps_per_epoch,
                        "step": step,
                        "learning_rate": float(np.asarray(training.schedule(step - 1))),
                        **means,
                        **training.evaluate(state),
                    }
                )
                state = state._replace(sums={name: np.float32(0) for name in SEEN})
                append_to_log(folder, records[-1])
            asked = interrupted()
            if step == save_at or step == training.steps or asked:
                so_far = seconds + time.perf_counter() - started
                save(manager, state, records, so_far)
            if asked and step < training.steps:
                manager.wait_until_finished()
                progress.close()
                raise Stopped(f"stopped by {asked} and saved at step {step}")
        progress.close()
    seconds += time.perf_counter() - started
    return summarise(config, training, records, seconds, folder)


def claim(config: Config, folder: Path) -> None:
    """Makes the folder, or finds there a run of the same configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    if path.exists():
        theirs = json.loads(path.read_text())
        ours = json.loads(json.dumps(dataclasses.asdict(config), default=str))
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
    else:
        write_atomically(path, lambda partial: configuration.save(config, partial))


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
        yield manager
    finally:
        manager.close()


def save(
    manager: ocp.CheckpointManager, state: State, records: list[Record], seconds: float
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
) -> tuple[State, list[Record], float]:
    """The newest checkpoint that can be read, or the start."""
    shapes = jax.eval_shape(training.init)
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
        try:
            read: Any = manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(shapes),
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
    return jax.jit(training.init)(), [], 0.0


@contextlib.contextmanager
def interruptions():
    """Yields a function that names the signal that asked to stop, or returns None."""
    asked = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [
        signal.signal(number, lambda number, _: asked.append(number))
        for number in signals
    ]
    try:
        yield lambda: signal.Signals(asked[0]).name if asked else None
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def write_log(folder: Path, records: list[Record]) -> None:
    """The log as of a checkpoint."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    write_atomically(folder / "log.jsonl", lambda path: path.write_text(lines))


def append_to_log(folder: Path, record: Record) -> None:
    """Adds a line."""
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(record) + "\n")


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes beside the path, and renames."""
    partial = path.with_name(f"{path.name}.partial")
    write(partial)
    os.replace(partial, path)


def summarise(
    config: Config,
    training: Training,
    records: list[Record],
    seconds: float,
    folder: Path,
) -> dict[str, Any]:
    """What came out, and what it depends on; saved as summary.json."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    before = 0
    gradients = 0
    for phase in training.phases:
        gradients += (phase.until - before) * phase.gradients
        before = phase.until
    device = jax.devices()[0]
    accuracies = [record["test_accuracy"] for record in records]
    summary = {
        "config": json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        "device": f"{device.platform} ({device.device_kind})",
        "devices": jax.device_count(),
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "optax", "flax")
        },
        "revision": git.stdout.strip() or "unknown",
        "parameters": sum(
            leaf.size for leaf in jax.tree.leaves(jax.eval_shape(training.init).params)
        ),
        "gradient_evaluations": gradients,
        "wall_seconds": round(seconds, 1),
        "final_test_accuracy": accuracies[-1],
        "best_test_accuracy": max(accuracies),
    }
    text = json.dumps(summary, indent=1) + "\n"
    write_atomically(folder / "summary.json", lambda path: path.write_text(text))
    return summary
