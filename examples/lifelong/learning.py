"""A network learns task after task, and is tested on all tasks after each.

The heads of all tasks are one output layer; an image's loss and prediction use only the
logits of its own task. With replay, each batch is joined by images from a memory
(`examples.lifelong.replay`), in one mean loss.
"""

from collections.abc import Iterator
import dataclasses
import functools
from pathlib import Path
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from examples.images import data
from examples.images.models import MODELS
from examples.lifelong import kept
from examples.lifelong import replay
from examples.lifelong import tasks
from examples.lifelong.config import check
from examples.lifelong.config import Lifelong
from examples.lifelong.maml import make_meta_loss
from examples.lifelong.methods import Method
from examples.lifelong.methods import METHODS
from examples.lifelong.replay import Batch
from examples.trainer.provenance import provenance
import lookbehind_optax as lb

TEST_BATCH = 500


class Network:
    """A network with a head for each task, compiled once for all methods.

    Args:
      config: of the comparison.
      dataset: gives the number of classes and the normalization.
    """

    def __init__(self, config: Lifelong, dataset: data.Dataset) -> None:
        """Jits the parts that don't depend on the method."""
        self.config, self.dataset = config, dataset
        self.model: Any = MODELS[config.model](classes=dataset.classes)
        self._image = jnp.zeros((1, *dataset.train.images.shape[1:]))
        self._init = jax.jit(self.model.init)
        made = jax.eval_shape(self._init, jax.random.key(0), self._image)
        if set(made) != {"params"}:
            raise ValueError(
                "--model must have no BatchNorm, whose statistics would be those of "
                f"the last task; got {config.model}"
            )
        self.correct = jax.jit(self._correct)

    def init(self, seed: int) -> Any:
        """Initial parameters."""
        return self._init(jax.random.key(seed), self._image)["params"]

    def logits(self, params: Any, images: jax.Array, task: jax.Array) -> jax.Array:
        """Logits of each image's own task, (batch, classes per task)."""
        images = jnp.float32(images) / 255
        images = (images - self.dataset.mean) / self.dataset.std
        logits = self.model.apply({"params": params}, images)
        logits = logits.reshape(len(task), -1, self.config.classes_per_task)
        return jnp.take_along_axis(logits, task[:, None, None], axis=1)[:, 0]

    def loss(self, params: Any, batch: Batch) -> jax.Array:
        """Mean cross-entropy, weighted by image."""
        logits = self.logits(params, batch.images, batch.tasks)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return jnp.sum(batch.weights * losses) / jnp.sum(batch.weights)

    def _correct(self, params, test, indices):
        logits = self.logits(params, test.images[indices], test.tasks[indices])
        return logits.argmax(axis=-1) == test.labels[indices]


class Learner:
    """A method applied to a network, compiled once for all seeds.

    Args:
      network: the network.
      method: the method.
    """

    def __init__(self, network: Network, method: Method) -> None:
        """Jits its step."""
        self.network, self.method = network, method
        self.config = config = network.config

        def replay_loss(params, current, recalled):
            return network.loss(params, replay.join(current, recalled))

        rate = config.meta_learning_rate if method.meta else config.learning_rate
        self.loss = (
            make_meta_loss(network.loss, rate, config.inner_steps, config.clip)
            if method.meta
            else replay_loss
        )
        clip = optax.clip_by_global_norm(config.clip)
        self.optimizer = method.wrap(config, optax.chain(clip, optax.sgd(rate)))
        step = lb.make_step(self.loss, self.optimizer)

        def advance(params, opt_state, memory, train, indices, key):
            size = config.replay_size if method.replay else 0
            recalled = replay.recall(memory, size, key)
            current = take(train, indices)
            params, opt_state, out = step(params, opt_state, current, recalled)
            return params, opt_state, out.loss

        self.advance = jax.jit(advance, donate_argnums=(0, 1))

    @property
    def gradients(self) -> int:
        """Gradients of the network in a step, those of C-MAML's inner steps as well."""
        inner = self.config.inner_steps if self.method.meta else 0
        return (1 + inner) * self.method.gradients(self.config.k)


def take(images: Any, indices: jax.Array) -> Batch:
    """A batch of images, all of weight 1."""
    chosen = (x[indices] for x in images)
    return Batch(*chosen, weights=jnp.ones(len(indices)))


@functools.partial(jax.jit, donate_argnums=0)
def remember(memory: Any, train: Any, indices: jax.Array, key: jax.Array) -> Any:
    """The memory after these images."""
    return replay.remember(memory, take(train, indices), key)


def accuracy_by_task(network: Network, params: Any, test: Any) -> np.ndarray:
    """Share of each task's test images that are classified correctly, (tasks,)."""
    found, number = [], len(test.labels)
    for start in range(0, number, TEST_BATCH):  # the last one repeats the last image
        indices = np.minimum(np.arange(start, start + TEST_BATCH), number - 1)
        found.append(network.correct(params, test, indices))
    task = np.asarray(test.tasks)
    correct = np.concatenate(found)[:number]
    return np.bincount(task, correct) / np.bincount(task)


def batches(
    config: Lifelong, of_task: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[bool, np.ndarray]]:
    """The images of each step of a task, and whether they are new."""
    images = rng.permutation(np.flatnonzero(of_task))
    images = images[: config.images_per_task].astype(np.int32)
    count = len(images) // config.batch_size
    for epoch in range(config.epochs):
        order = rng.permutation(images)[: count * config.batch_size]
        for indices in order.reshape(count, -1):
            for glance in range(config.glances):
                yield epoch == glance == 0, indices


def learn(
    learner: Learner, stream: tasks.Stream, seed: int
) -> tuple[np.ndarray, int, Any]:
    """Learns all tasks, one after the other.

    Args:
      learner: of a method.
      stream: the tasks.
      seed: of everything that is drawn except the split.

    Returns:
      The accuracy on task j after learning task i, of shape (T, T); the gradients
      evaluated; the parameters at the end.

    Raises:
      FloatingPointError: if the loss isn't finite.
    """
    config, rng = learner.config, np.random.default_rng(seed)
    train, test = jax.device_put((stream.train, stream.test))
    params = learner.network.init(seed)
    opt_state = learner.optimizer.init(params)
    memory = replay.empty(config.memory, stream.train)
    key, steps, rows = jax.random.key(seed), 0, []
    for task in range(len(stream.classes)):
        loss = jnp.zeros([])
        for is_new, indices in batches(config, stream.train.tasks == task, rng):
            keys = jax.random.split(jax.random.fold_in(key, steps))
            params, opt_state, loss = learner.advance(
                params, opt_state, memory, train, indices, keys[0]
            )
            if is_new:
                memory = remember(memory, train, indices, keys[1])
            steps += 1
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss of {learner.method.title} was {loss} at the end of task "
                f"{task + 1}. Try a smaller --learning-rate, or --meta-learning-rate"
            )
        slow = lb.eval_params(opt_state, params)
        rows.append(accuracy_by_task(learner.network, slow, test))
    return np.stack(rows), steps * learner.gradients, params


def check_sizes(config: Lifelong, streams: list[tasks.Stream]) -> None:
    """Refuses batches that are larger than a task, and tasks without test images.

    Raises:
      ValueError: if a task has fewer training images than a batch, or none to test.
    """
    for stream in streams:
        train, test = (
            np.bincount(part.tasks, minlength=len(stream.classes))
            for part in (stream.train, stream.test)
        )
        for classes, images, tested in zip(stream.classes, train, test, strict=True):
            named = ", ".join(map(str, classes))
            images = min(images, config.images_per_task or images)
            if images < config.batch_size:
                raise ValueError(
                    f"--batch-size must be at most the {images} training images of the "
                    f"task of classes {named}; got {config.batch_size}"
                )
            if not tested:
                raise ValueError(
                    "--dataset must have test images of every task; got none of "
                    f"classes {named}"
                )


def measure(learner: Learner, stream: tasks.Stream, seed: int) -> dict[str, Any]:
    """Learns all tasks; accuracies (T, T), gradients and seconds."""
    begun = time.perf_counter()
    accuracies, gradients, _ = learn(learner, stream, seed)
    seconds = time.perf_counter() - begun
    return {
        "accuracies": accuracies.tolist(),
        "gradients": gradients,
        "seconds": seconds,
    }


def run(config: Lifelong, folder: Path | None = None) -> dict[str, Any]:
    """Learns with every method and seed.

    Args:
      config: of the comparison.
      folder: keeps the numbers of each run; what is there isn't learned again. None to
        keep nothing.

    Returns:
      The configuration, what the numbers depend on, and for each method its
      accuracies (seeds, T, T), the gradients of a run and the seconds of all of them,
      compilation included.

    Raises:
      ValueError: if the configuration can't be run, or the folder has another.
      OSError: if the dataset can't be read or downloaded, or another process uses the
        folder.
      FloatingPointError: if a loss isn't finite.
      Stopped: on Ctrl-C, if there is a folder.
    """
    check(config)
    dataset = data.load(config.dataset, config.data_dir)
    seeds = range(config.seed, config.seed + config.seeds)
    streams = [tasks.split(dataset, config.classes_per_task, seed) for seed in seeds]
    check_sizes(config, streams)
    network = Network(config, dataset)
    names, found = config.methods or tuple(METHODS), {}
    with (
        kept.claimed(config, dataset, folder),
        tqdm(total=len(names) * config.seeds, unit="run") as progress,
    ):
        for name in names:
            progress.set_description(name)
            learner, runs = Learner(network, METHODS[name]), []
            for seed, stream in zip(seeds, streams, strict=True):
                learned = functools.partial(measure, learner, stream, seed)
                path = folder and folder / f"{name}-{seed}.json"
                runs.append(kept.once(path, learned))
                progress.update()
            found[name] = {
                "accuracies": [it["accuracies"] for it in runs],
                "gradients": runs[0]["gradients"],
                "seconds": sum(it["seconds"] for it in runs),
            }
    settings = dataclasses.asdict(config)
    for name in ("data_dir", "output", "methods"):  # the numbers don't depend on these
        del settings[name]
    return {**provenance(), "config": settings, "methods": found}
