"""Lifelong learning: `python -m examples.lifelong --help` says what it can do.

A network learns task after task of one dataset, split by classes (`examples.tasks`),
and is tested on all of them after each. Heads of all tasks are one output layer; an
image's loss and prediction see the logits of its own task alone. With replay, each
batch is joined by images from a memory (`examples.replay`), in one mean loss.

C-MAML is a loss, not an optimizer (`examples.maml`). So "C-MAML with Lookahead" is
Lookahead around the SGD that follows the meta-gradient, and Lookbehind takes its place
as it does anywhere: it climbs the meta-loss, and every gradient is a meta-gradient.
"""

from collections.abc import Callable
import dataclasses
import functools
import json
from pathlib import Path
import sys
import time
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import optax
from tqdm import tqdm
import tyro

from examples import data
from examples import replay
from examples import tasks
from examples.maml import make_meta_loss
from examples.models import MODELS
from examples.provenance import provenance
from examples.replay import Batch
import lookbehind_optax as lb

TEST_BATCH = 500


@dataclasses.dataclass(frozen=True)
class Lifelong:
    """Learn a stream of tasks with every method, and compare.

    Without arguments, these are five tasks of two of scikit-learn's digits. The output
    folder gets the table, the plot of accuracy by task, and all accuracies as JSON.

    Attributes:
      dataset: digits (needs no network), or an image-classification dataset of TFDS
        that fits the memory: cifar100, fashion_mnist, ...
      data_dir: folder of datasets that TFDS has prepared; where they are downloaded to
        if they aren't there. TFDS's own by default.
      classes_per_task: in each task; a divisor of the number of classes, which a seed
        puts in an order of its own.
      images_per_task: training images of each task, drawn by seed; all by default.
      model: network, a name in examples/models.py, without BatchNorm or dropout. conv3
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


class Method(NamedTuple):
    """A way to learn a stream.

    Attributes:
      title: in table and plot.
      wrap: from the configuration and the base optimizer to the optimizer.
      gradients: gradients of its objective in a step, given k.
      color: in the plot, of Okabe and Ito's palette, as the markers differ, too.
      marker: in the plot.
      replay: whether it has a memory.
      meta: whether its objective is C-MAML's.
    """

    title: str
    wrap: Callable[[Lifelong, Any], optax.GradientTransformationExtraArgs]
    gradients: Callable[[int], int]
    color: str
    marker: str
    replay: bool = False
    meta: bool = False


SGD = Method("SGD", lambda config, base: base, lambda k: 1, "#000000", "o")
LOOKBEHIND = Method(
    "Lookbehind-SAM",
    lambda config, base: lb.lookbehind_sam(base, config.rho, config.k, config.alpha),
    lambda k: k + 1,
    "#D55E00",
    "D",
)
BASELINES = {
    "sgd": SGD,
    "sam": Method(
        "SAM",
        lambda config, base: lb.sam(base, config.rho),
        lambda k: 2,
        "#0072B2",
        "s",
    ),
    "multistep_sam": Method(
        "Multistep-SAM",
        lambda config, base: lb.multistep_sam(base, config.rho, config.k),
        lambda k: k + 1,
        "#E69F00",
        "^",
    ),
    "lookbehind_sam": LOOKBEHIND,
}
META = {
    "cmaml": SGD._replace(title="C-MAML"),
    "cmaml_lookahead": Method(
        "C-MAML, Lookahead",
        lambda config, base: lb.lookahead(base, config.k, config.alpha),
        lambda k: 1,
        "#009E73",
        "v",
    ),
    "cmaml_lookbehind": LOOKBEHIND._replace(title="C-MAML, Lookbehind"),
}
METHODS = {
    **BASELINES,
    **{f"{name}+replay": it._replace(replay=True) for name, it in BASELINES.items()},
    **{
        f"{name}+replay": it._replace(replay=True, meta=True)
        for name, it in META.items()
    },
}


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


class Network:
    """A network with a head for each task, compiled once for all methods.

    Args:
      config: of the comparison.
      dataset: of which it takes the number of classes and the normalisation.
    """

    def __init__(self, config: Lifelong, dataset: data.Dataset) -> None:
        """Jits what needs no method."""
        self.config, self.dataset = config, dataset
        self.model: Any = MODELS[config.model](classes=dataset.classes)
        self._init = jax.jit(self.model.init)
        self.correct = jax.jit(self._correct)

    def init(self, seed: int) -> Any:
        """Initial parameters."""
        key = jax.random.key(seed)
        image = jnp.zeros((1, *self.dataset.train.images.shape[1:]))
        if set(jax.eval_shape(self._init, key, image)) != {"params"}:
            raise ValueError(
                "model must have no BatchNorm, whose statistics would be those of the "
                f"last task; got {self.config.model}"
            )
        return self._init(key, image)["params"]

    def logits(self, params: Any, images: jax.Array, task: jax.Array) -> jax.Array:
        """Of the classes of each image's own task, (batch, classes per task)."""
        images = jnp.float32(images) / 255
        images = (images - self.dataset.mean) / self.dataset.std
        logits = self.model.apply({"params": params}, images)
        logits = logits.reshape(len(task), -1, self.config.classes_per_task)
        return jnp.take_along_axis(logits, task[:, None, None], axis=1)[:, 0]

    def loss(self, params: Any, batch: Batch) -> jax.Array:
        """Mean cross-entropy, by the weights of the images."""
        logits = self.logits(params, batch.images, batch.tasks)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return jnp.sum(batch.weights * losses) / jnp.sum(batch.weights)

    def _correct(self, params, test, indices):
        logits = self.logits(params, test.images[indices], test.tasks[indices])
        return logits.argmax(axis=-1) == test.labels[indices]


class Learner:
    """What one method does to a network, compiled once for all seeds.

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
    """Share of the test images of each task that are classified rightly, (tasks,)."""
    found, number = [], len(test.labels)
    for start in range(0, number, TEST_BATCH):  # the last one repeats the last image
        indices = np.minimum(np.arange(start, start + TEST_BATCH), number - 1)
        found.append(network.correct(params, test, indices))
    task = np.asarray(test.tasks)
    correct = np.concatenate(found)[:number]
    return np.bincount(task, correct) / np.bincount(task)


def learn(
    learner: Learner, stream: tasks.Stream, seed: int
) -> tuple[np.ndarray, int, Any]:
    """Learns all tasks, one after the other.

    Args:
      learner: of a method.
      stream: the tasks.
      seed: of all that is drawn but the split.

    Returns:
      The accuracy on task j after learning task i, of shape (T, T); the gradients
      evaluated; the parameters in the end.

    Raises:
      ValueError: if a task has fewer training images than a batch.
      FloatingPointError: if the loss isn't finite.
    """
    config, rng = learner.config, np.random.default_rng(seed)
    train, test = jax.device_put((stream.train, stream.test))
    params = learner.network.init(seed)
    opt_state = learner.optimizer.init(params)
    memory = replay.empty(config.memory, stream.train)
    key, steps, rows = jax.random.key(seed), 0, []
    for task, classes in enumerate(stream.classes):
        images = rng.permutation(np.flatnonzero(stream.train.tasks == task))
        images = images[: config.images_per_task].astype(np.int32)
        batches = len(images) // config.batch_size
        if batches == 0:
            raise ValueError(
                f"batch_size must be at most the {len(images)} training images of the "
                f"task of classes {', '.join(map(str, classes))}; "
                f"got {config.batch_size}"
            )
        loss = jnp.zeros([])
        for epoch in range(config.epochs):
            order = rng.permutation(images)[: batches * config.batch_size]
            for indices in order.reshape(batches, -1):
                keys = jax.random.split(jax.random.fold_in(key, steps))
                params, opt_state, loss = learner.advance(
                    params, opt_state, memory, train, indices, keys[0]
                )
                if epoch == 0:
                    memory = remember(memory, train, indices, keys[1])
                steps += 1
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss of {learner.method.title} was {loss} at the end of task "
                f"{task + 1}. Try a smaller learning rate"
            )
        slow = lb.eval_params(opt_state, params)
        rows.append(accuracy_by_task(learner.network, slow, test))
    return np.stack(rows), steps * learner.gradients, params


def run(config: Lifelong) -> dict[str, Any]:
    """Learns with every method and seed.

    Returns:
      The configuration, what the numbers depend on, and for each method its
      accuracies (seeds, T, T), the gradients of a run and the seconds of all of them.

    Raises:
      ValueError: if the configuration can't be run.
      OSError: if the dataset can't be read or downloaded.
      FloatingPointError: if a loss isn't finite.
    """
    check(config)
    dataset = data.load(config.dataset, config.data_dir)
    seeds = range(config.seed, config.seed + config.seeds)
    streams = [tasks.split(dataset, config.classes_per_task, seed) for seed in seeds]
    network = Network(config, dataset)
    names, found = config.methods or tuple(METHODS), {}
    with tqdm(total=len(names) * config.seeds, unit="run") as progress:
        for name in names:
            progress.set_description(name)
            begun = time.perf_counter()
            learner = Learner(network, METHODS[name])
            accuracies, gradients = [], 0
            for seed, stream in zip(seeds, streams, strict=True):
                accuracy, gradients, _ = learn(learner, stream, seed)
                accuracies.append(accuracy.tolist())
                progress.update()
            found[name] = {
                "accuracies": accuracies,
                "gradients": gradients,
                "seconds": time.perf_counter() - begun,
            }
    told = dataclasses.asdict(config)
    for name in ("data_dir", "output", "methods"):  # not what the numbers depend on
        del told[name]
    return {**provenance(), "config": told, "methods": found}


def table(results: dict[str, Any]) -> str:
    """Average accuracy and forgetting as Markdown, mean ± standard deviation."""
    lines = [
        "| method | replay | average accuracy (%) | forgetting (points) "
        "| gradients in a run | seconds of all runs |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results["methods"].items():
        accuracies = 100 * np.array(found["accuracies"])
        measured = (
            f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
            for values in (
                tasks.average_accuracy(accuracies),
                tasks.forgetting(accuracies),
            )
        )
        method = METHODS[name]
        lines.append(
            f"| {method.title} | {'yes' if method.replay else 'no'} "
            f"| {' | '.join(measured)} | {found['gradients']:,} "
            f"| {found['seconds']:.0f} |"
        )
    return "\n".join(lines)


def figure(results: dict[str, Any]) -> Figure:
    """Draws accuracy over the stream, and at its end by task."""
    groups = {
        "without replay": lambda method: not method.replay,
        "with replay": lambda method: method.replay and not method.meta,
        "C-MAML, with replay": lambda method: method.meta,
    }
    shown = {
        title: names
        for title, belongs in groups.items()
        if (names := [name for name in results["methods"] if belongs(METHODS[name])])
    }
    config = results["config"]
    drawing = Figure(figsize=(1 + 3.6 * len(shown), 6.5), layout="constrained")
    drawing.suptitle(
        f"{config['dataset']} in tasks of {config['classes_per_task']} classes, mean "
        f"± standard deviation over {config['seeds']} seeds"
    )
    rows = drawing.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
    for column, (title, names) in zip(rows.T, shown.items(), strict=True):
        for i, name in enumerate(names):
            method = METHODS[name]
            accuracies = 100 * np.array(results["methods"][name]["accuracies"])
            count = accuracies.shape[-1]
            learned = np.arange(1, count + 1)
            # After learning task i, the mean over tasks 1 to i.
            so_far = np.tril(accuracies).sum(axis=-1) / learned
            # Side by side, so that none hides another.
            shift = 0.12 * (i - (len(names) - 1) / 2)
            for axes, values in zip(column, (so_far, accuracies[:, -1]), strict=True):
                axes.errorbar(
                    learned + shift,
                    values.mean(axis=0),
                    values.std(axis=0, ddof=1),
                    color=method.color,
                    marker=method.marker,
                    markersize=4,
                    linewidth=1 if axes is column[0] else 0,
                    elinewidth=1,
                    label=method.title,
                )
        top, bottom = column
        top.set_title(title)
        bottom.legend(
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.18),
            ncols=2,
            fontsize="small",
        )
        top.set_xlabel("tasks learned")
        bottom.set_xlabel("task")
        bottom.xaxis.get_major_locator().set_params(integer=True)
        for axes in column:
            axes.grid(alpha=0.3)
            axes.tick_params(labelbottom=True)
    for axes in rows.flat:
        axes.set_ylim(top=101)  # of a standard deviation, what is beyond isn't there
    rows[0, 0].set_ylabel("mean accuracy on tasks so far (%)")
    rows[1, 0].set_ylabel("accuracy at the end (%)")
    return drawing


def save(results: dict[str, Any], folder: Path, stem: str) -> None:
    """Writes table, plot and JSON, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{stem}.md").write_text(table(results) + "\n")
    figure(results).savefig(folder / f"{stem}.png", dpi=150)
    print(table(results))
    print(f"\nTable, plot and all accuracies are in {folder / stem}.*")


def main(arguments: list[str] | None = None) -> None:
    """Learns, and reports."""
    config = tyro.cli(Lifelong, prog="python -m examples.lifelong", args=arguments)
    try:
        save(run(config), config.output, "lifelong")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
