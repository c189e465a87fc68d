r"""Lookbehind-SAM on several hosts: all stop when one dies, and resume when rerun.

Trains a small Flax network on scikit-learn's digits, with parameters, optimizer state
and batches spread over the devices of all processes. To try it with two processes of 4
virtual CPU devices each on one machine, run these in two shells:

    python -m examples.multihost --cpu-devices 4 --coordinator localhost:12345 \
        --processes 2 --process-id 0
    python -m examples.multihost --cpu-devices 4 --coordinator localhost:12345 \
        --processes 2 --process-id 1

One process with `--cpu-devices 8` trains to the same numbers, up to rounding.

When a process dies, the others stop within about --heartbeat seconds and say so on
stderr. Run the same commands again: training resumes from the last complete checkpoint,
with the batches that would have come next. Until it is complete, a checkpoint has
another name, so training never resumes from an interrupted one.

Each training process has a parent that waits for it. When another process is gone, JAX
aborts this one, at once or after a wait in a collective. No `except` or `finally` runs
then, so only a parent can say what happened.
"""

import argparse
import multiprocessing
import os
from pathlib import Path
import platform
import signal
import sys
import threading
import traceback
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import optax
import orbax.checkpoint as ocp
from sklearn.datasets import load_digits

import lookbehind_optax as lb

TRAINING_IMAGES = 1500  # of 1797; the others are the test set
BATCH_SIZE = 64  # of all processes together, a multiple of the number of devices
SEED = 0  # of the initial weights and the order of the batches

model: Any = nn.Sequential([nn.Dense(256), nn.relu, nn.Dense(10)])


def loss_fn(params, images, labels):
    """Mean cross-entropy, and the share of images classified as labeled."""
    logits = model.apply(params, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), (logits.argmax(-1) == labels).mean()


def own_examples(step: int) -> np.ndarray:
    """Which images of a step's batch this process feeds, the same in every run."""
    epoch, number = divmod(step, TRAINING_IMAGES // BATCH_SIZE)
    order = np.random.default_rng((SEED, epoch)).permutation(TRAINING_IMAGES)
    batch = order[BATCH_SIZE * number :][:BATCH_SIZE]
    return batch.reshape(jax.process_count(), -1)[jax.process_index()]


def train(arguments: argparse.Namespace) -> None:
    """Trains to the last step, from the last complete checkpoint if there is one."""
    if arguments.cpu_devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", arguments.cpu_devices)
    if arguments.cluster or arguments.coordinator:
        jax.distributed.initialize(
            arguments.coordinator,
            arguments.processes,
            arguments.process_id,
            heartbeat_timeout_seconds=arguments.heartbeat,
        )
    devices = jax.device_count()
    if BATCH_SIZE % devices:
        raise ValueError(f"{devices} devices can't share batches of {BATCH_SIZE}")

    def report(message):
        if jax.process_index() == 0:
            print(message, flush=True)

    # Everything below that touches devices has to come after `initialize`.
    mesh = Mesh(np.array(jax.devices()), ("data",))
    by_example = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())

    def place(leaf):  # as in FSDP: split along the first axis that allows it
        axes = [i for i, size in enumerate(leaf.shape) if size % devices == 0]
        spec = [None] * axes[0] + ["data"] if axes else []
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    optimizer = lb.lookbehind_sam(optax.adam(1e-3), rho=0.05, k=2, alpha=0.5)

    def init():
        params = model.init(jax.random.key(SEED), np.zeros((1, 64)))
        return params, optimizer.init(params)

    shapes = jax.tree.map(place, jax.eval_shape(init))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    train_step = jax.jit(
        lb.make_step(loss_fn, optimizer, has_aux=True),
        donate_argnums=(0, 1),
        out_shardings=(*shardings, replicated),
    )

    manager = ocp.CheckpointManager(
        arguments.checkpoints.absolute(),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(2),
            cleanup_tmp_directories=True,  # from interrupted checkpoints
        ),
    )
    start = manager.latest_step() or 0
    if start:
        template = ocp.args.StandardRestore(shapes)
        params, opt_state = manager.restore(start, args=template)
    else:
        params, opt_state = jax.jit(init, out_shardings=shardings)()

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    size = f"{jax.process_count()} x {jax.local_device_count()} devices"
    report(f"{size}, from step {start}")
    for step in range(start, arguments.steps):
        own = own_examples(step)
        batch = [
            jax.make_array_from_process_local_data(by_example, array[own])
            for array in (images, labels)
        ]
        params, opt_state, out = train_step(params, opt_state, *batch)
        done = step + 1
        if done % arguments.save_every == 0 or done == arguments.steps:
            # Waits for the previous checkpoint, and writes this one in the background.
            manager.save(done, args=ocp.args.StandardSave((params, opt_state)))
            report(f"step {done}: loss {out.loss:.4f}, accuracy {out.aux:.4f}")
    manager.close()

    @jax.jit
    def evaluate(params, images, labels):
        return *loss_fn(params, images, labels), optax.tree.norm(params)

    test = images[TRAINING_IMAGES:], labels[TRAINING_IMAGES:]
    loss, accuracy, norm = evaluate(params, *test)
    report(f"test loss {loss:.8f}, accuracy {accuracy:.4f}, norm of params {norm:.8f}")


def train_as_child(arguments: argparse.Namespace) -> None:
    """Trains; exits at once on an error or when the parent exits."""

    def end_with(parent):
        parent.join()
        os._exit(1)

    parent = multiprocessing.parent_process()
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()
    try:
        train(arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # an orderly exit would wait for the other processes


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.multihost",
        allow_abbrev=False,
        description="Train a small network on scikit-learn's digits with "
        "Lookbehind-SAM over Adam: in one process, or with --coordinator or --cluster "
        "in several, which share parameters, optimizer state and batches. Run the same "
        "command again to continue from the last complete checkpoint, after a process "
        "has died or to train for more steps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    text = "process 0 and a free port there; processes wait 5 minutes for one another"
    add("--coordinator", metavar="HOST:PORT", help=text)
    add("--processes", type=int, metavar="N", help="number of processes")
    add(
        "--process-id", type=int, metavar="I", help="number of this process, 0 to N - 1"
    )
    text = "find out the above, as JAX can on TPU pods, Slurm, Open MPI and Kubernetes"
    add("--cluster", action="store_true", help=text)
    text = "use this many virtual CPU devices in each process and no other devices"
    add("--cpu-devices", type=int, metavar="N", help=text)
    text = "silence after which a process counts as dead, and the others stop"
    add("--heartbeat", type=int, default=30, metavar="SECONDS", help=text)
    text = "folder that every host sees; a new one for each new training"
    path = Path("multihost-checkpoints")
    add("--checkpoints", type=Path, default=path, metavar="DIR", help=text)
    text = "number of steps between checkpoints and between reports"
    add("--save-every", type=int, default=50, metavar="N", help=text)
    text = "number of steps in all, including those before a checkpoint"
    add("--steps", type=int, default=300, metavar="N", help=text)
    given = parser.parse_args(arguments)
    check(parser, given)
    return given


def check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuses what can't be run."""
    address = (given.coordinator, given.processes, given.process_id)
    missing = address.count(None)
    if missing not in (0, 3) or (given.cluster and missing == 0):
        parser.error("give --coordinator, --processes and --process-id, or --cluster")
    for flag in ("processes", "cpu_devices", "heartbeat", "save_every", "steps"):
        number = getattr(given, flag)
        if number is not None and not 1 <= number < 2**31:
            parser.error(
                f"argument --{flag.replace('_', '-')}: must be at least 1, and of 32 "
                f"bits; got {number}"
            )
    if given.process_id is not None and not 0 <= given.process_id < given.processes:
        parser.error(
            f"argument --process-id: must be from 0 to {given.processes - 1}, one less "
            f"than --processes; got {given.process_id}"
        )
    folder = given.checkpoints
    if folder.exists() and not folder.is_dir():
        parser.error(f"argument --checkpoints: must be a folder; got {folder}")


def main(arguments: list[str] | None = None) -> None:
    """Trains; if training ends early, explains why on stderr."""
    given = parse_arguments(arguments)
    if not (given.cluster or given.coordinator):
        train(given)
        return
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=train_as_child, args=(given,))
    child.start()
    child.join()
    status = child.exitcode or 0
    if status == 0:
        return
    number = "" if given.cluster else f" {given.process_id}"
    if status == -signal.SIGABRT:
        cause = "JAX aborted it (see above), most likely because another process died"
    elif status < 0:
        cause = f"it was killed by {signal.Signals(-status).name}"
    else:
        cause = "see the error above, its own or that another process died"
    folder = given.checkpoints
    steps = ocp.path.step.checkpoint_steps(folder) if folder.is_dir() else []
    sys.exit(
        f"\nProcess{number} on {platform.node()} stopped early: {cause}. The others "
        f"stop within about {given.heartbeat} seconds. Then run the same commands "
        f"again: training continues from step {max(steps, default=0)}"
        + (f", the last complete checkpoint in {folder}." if steps else ".")
    )


if __name__ == "__main__":
    main()
