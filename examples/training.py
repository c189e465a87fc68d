"""One training run on images that fit the device: its steps, epochs and evaluation."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples import augmentation
from examples import data
from examples.config import Config
from examples.models import MODELS
from examples.optimizers import make_phases
from examples.optimizers import make_schedule
from examples.optimizers import Phase
import lookbehind_optax as lb

EVALUATION_BATCH = 256


class State(NamedTuple):
    """All that a run needs to go on, and so what a checkpoint holds.

    Attributes:
      step: steps taken.
      params: parameters; the slow weights, save under a Lookahead.
      batch_stats: running statistics of BatchNorm.
      opt_state: state of the optimizer, of one structure for all phases.
      sums: of what the steps of this epoch saw; by name.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    sums: dict[str, jax.Array]


class Training:
    """A run as its configuration tells it; pure functions of the `State`."""

    def __init__(self, config: Config, dataset: data.Dataset):
        """Builds network, optimizers and steps; nothing is computed yet."""
        self.config, self.dataset = config, dataset
        if config.model not in MODELS:
            raise ValueError(
                f"--model must be one of {', '.join(MODELS)}; got {config.model}"
            )
        dtype = jnp.dtype(config.precision)
        self.model: Any = MODELS[config.model](classes=dataset.classes, dtype=dtype)
        ks = {phase.k for phase in make_phases(config, 1)}
        if config.switch_minibatches and len(ks) > 1:
            raise ValueError(
                "--switch-minibatches needs one k in all --phases; "
                f"got {', '.join(map(str, sorted(ks)))}"
            )
        self.images_per_step = config.batch_size
        if config.switch_minibatches:
            self.images_per_step *= max(1, *ks)
        self.steps_per_epoch = len(dataset.train.labels) // self.images_per_step
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"--batch-size is too large: a step takes {self.images_per_step} of "
                f"the {len(dataset.train.labels)} training images"
            )
        self.steps = config.epochs * self.steps_per_epoch
        self.phases = make_phases(config, self.steps_per_epoch)
        self.schedule = make_schedule(config, self.steps_per_epoch)
        self.augments = config.augment == "yes" or (
            config.augment == "auto" and dataset.train.images.shape[-1] == 3
        )
        self.images = jnp.asarray(dataset.train.images)
        self.labels = jnp.asarray(dataset.train.labels)
        # Loops around convolutions are slow on CPUs, where calls cost little.
        self.scans = jax.default_backend() != "cpu"

    def init(self) -> State:
        """The state before the first step."""
        variables = self.model.init(
            jax.random.key(self.config.seed), self.normalise(self.images[:1])
        )
        params = variables["params"]
        return State(
            step=jnp.int32(0),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=self.phases[0].optimizer.init(params),
            sums=dict.fromkeys(SEEN, jnp.float32(0.0)),
        )

    def normalise(self, images: jax.Array) -> jax.Array:
        """Floats of mean 0 and variance 1 over the training images."""
        return augmentation.normalise(images, self.dataset.mean, self.dataset.std)

    def advance(self, state: State, start: int, stop: int) -> State:
        """Takes the steps from `start` to `stop`, which are of one epoch."""
        while start < stop:
            phase = next(phase for phase in self.phases if start < phase.until)
            end = min(stop, phase.until)
            epoch, first = divmod(start, self.steps_per_epoch)
            order = data.order(self.config.seed, epoch, len(self.dataset.train.labels))
            used = order[: self.steps_per_epoch * self.images_per_step]
            batches = used.reshape(self.steps_per_epoch, *self.batch_shape)
            run = self.several_steps(phase) if self.scans else self.single_steps(phase)
            state = run(state, batches[first : first + end - start])
            start = end
        return state

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Of the indices of a step's images: minibatches first, where there are any."""
        size = self.config.batch_size
        return (-1, size) if self.config.switch_minibatches else (size,)

    def single_steps(self, phase: Phase) -> Callable[[State, np.ndarray], State]:
        """A call for each step."""
        step = self.train_step(phase)

        def run(state, batches):
            for indices in batches:
                state = step(state, self.images, self.labels, jnp.asarray(indices))
            return state

        return run

    def several_steps(self, phase: Phase) -> Callable[[State, np.ndarray], State]:
        """One call for all steps, without a word between device and host."""
        scan = self.scan(phase)
        return lambda state, batches: scan(
            state, self.images, self.labels, jnp.asarray(batches)
        )

    @functools.cache  # noqa: B019 a training lives as long as the program
    def train_step(self, phase: Phase) -> Callable[..., State]:
        """The jitted step of a phase."""
        return jax.jit(self.pure_step(phase), donate_argnums=0)

    @functools.cache  # noqa: B019
    def scan(self, phase: Phase) -> Callable[..., State]:
        """The jitted scan over steps of a phase."""
        step = self.pure_step(phase)

        @functools.partial(jax.jit, donate_argnums=0)
        def scan(state, images, labels, batches):
            def body(state, indices):
                return step(state, images, labels, indices), None

            return jax.lax.scan(body, state, batches)[0]

        return scan

    def pure_step(self, phase: Phase) -> Callable[..., State]:
        """One step on the images of the given indices, augmented on the device."""
        config = self.config
        update = lb.make_step(
            self.loss,
            phase.optimizer,
            has_aux=True,
            switch_minibatches=config.switch_minibatches and phase.k > 0,
            micro_batches=config.micro_batches,
            m=config.m,
            axis_name=None if config.m is None else "group",
        )

        def step(state, images, labels, indices):
            key = jax.random.fold_in(jax.random.key(config.seed), state.step)
            crops, dropout = jax.random.split(key)
            batch = images[indices]
            if self.augments:
                flat = batch.reshape(-1, *images.shape[1:])
                batch = augmentation.augment(crops, flat).reshape(batch.shape)
            params, opt_state, out = update(
                state.params,
                state.opt_state,
                self.normalise(batch),
                labels[indices],
                batch_stats=state.batch_stats,
                key=dropout,
            )
            seen = {
                "loss": out.loss,
                "accuracy": out.aux["accuracy"],
                "perturbed_loss": out.perturbed_loss,
                "alpha": out.alpha,
                "grad_norm": out.grad_norm,
            }
            sums = jax.tree.map(jnp.add, state.sums, seen)
            return State(
                state.step + 1, params, out.aux["batch_stats"], opt_state, sums
            )

        return step

    def loss(self, params, images, labels, *, batch_stats, key):
        """Cross-entropy with smoothed labels, from the training mode of the network."""
        variables = {"params": params}
        if batch_stats:
            variables["batch_stats"] = batch_stats
        logits, updates = self.model.apply(
            variables, images, train=True, mutable="batch_stats", rngs={"dropout": key}
        )
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, self.dataset.classes), self.config.label_smoothing
        )
        return optax.softmax_cross_entropy(logits, targets).mean(), {
            "accuracy": jnp.mean(logits.argmax(-1) == labels),
            "batch_stats": updates.get("batch_stats", {}),
        }

    def evaluate(self, state: State) -> dict[str, float]:
        """Loss and accuracy of the slow weights on the test images."""
        params = lb.eval_params(state.opt_state, state.params)
        batches = data.padded_batches(self.dataset.test, EVALUATION_BATCH)
        sums = np.zeros(2)
        for batch in batches:
            sums += np.asarray(self.evaluate_batch(params, state.batch_stats, *batch))
        loss, correct = sums / len(self.dataset.test.labels)
        return {"test_loss": float(loss), "test_accuracy": float(correct)}

    @functools.cached_property
    def evaluate_batch(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        """Sums of losses and of right answers, over the images that the mask keeps."""

        @jax.jit
        def evaluate(params, batch_stats, images, labels, mask):
            variables = {"params": params, "batch_stats": batch_stats}
            logits = self.model.apply(variables, self.normalise(images), train=False)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            right = logits.argmax(-1) == labels
            return jnp.sum(losses, where=mask), jnp.sum(right, where=mask)

        return evaluate


SEEN = ("loss", "accuracy", "perturbed_loss", "alpha", "grad_norm")
