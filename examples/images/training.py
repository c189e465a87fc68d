"""One training run of an image classifier: its steps, epochs and evaluation."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples.images import augmentation
from examples.images import data
from examples.images import feeds
from examples.images import networks
from examples.images import parts
from examples.images.config import Config
from examples.images.models import VisionTransformer
from examples.trainer.optimizers import Phase
from examples.trainer.phases import no_sums
from examples.trainer.phases import Phased
from examples.trainer.provenance import sha256

BINS = 15  # of confidences, as in Guo et al. 2017


class State(NamedTuple):
    """All that a run needs to resume: the content of a checkpoint.

    Attributes:
      step: steps taken.
      params: parameters; the slow weights, except under a Lookahead.
      batch_stats: running statistics of BatchNorm.
      opt_state: state of the optimizer, of one structure for all phases.
      sums: of the metrics of this epoch's steps, by name.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    sums: dict[str, jax.Array]


class Training(Phased):
    """The run of a configuration, as pure functions of the `State`.

    Attributes:
      judge: name of the examples that are evaluated after each epoch.
      fingerprint: digests of the data and of pretrained weights, by name.
    """

    unit = "images"
    config: Config

    def __init__(self, config: Config, dataset: data.Dataset | data.Streamed):
        """Builds network, optimizers and steps; nothing is computed yet."""
        super().__init__(config)
        self.fingerprint = {dataset.name: dataset.digest}
        self.parts = parts.divide(
            dataset,
            config.label_noise,
            config.validation,
            config.seed,
            clean=config.clean_validation,
        )
        self.test = dataset.test
        self.judge = "test" if self.parts.valid is None else "valid"
        self.goal = f"{self.judge}_accuracy"
        batch, train = self.batch, self.parts.train
        dataset = dataclasses.replace(dataset, train=train)  # pyright: ignore
        if isinstance(dataset, data.Dataset):
            self.feed = feeds.Resident(dataset, batch, config.seed, self.layout)
            height, width, _ = self.feed.shape
            size = config.image_size or height
            if config.image_size is None and width != height:
                raise ValueError(
                    f"{dataset.name} has images of {height}×{width} pixels; say to "
                    "what square to resize them, as in --image-size 32"
                )
        else:
            size = config.image_size or 224
            crops = config.augment != "no"
            self.feed = feeds.Streamed(
                dataset, batch, config.seed, self.layout, size, crops
            )
        # Of an image as the network sees it; pretrained ones know colors alone.
        channels = 3 if config.pretrained else self.feed.shape[-1]
        self.shape = (size, size, channels)
        self.model = self.make_model()
        # Read before the run makes its folder, so that a wrong file leaves none behind.
        self.weights = None
        if config.pretrained is not None:
            from examples.images.pretrained import load_vit  # needs safetensors

            self.weights = load_vit(config.pretrained, self.model, self.shape)
            self.fingerprint[str(config.pretrained)] = sha256(config.pretrained)
        self.plan(self.feed.train)
        resident = isinstance(self.feed, feeds.Resident)
        # Crops of a stream are random already.
        self.augments = resident and (
            config.augment == "yes"
            or (config.augment == "auto" and self.feed.shape[-1] == 3)
        )
        # Loops around convolutions are slow on CPUs, where calls cost little.
        self.scans = resident and jax.default_backend() != "cpu"
        self.place()

    def make_model(self) -> Any:
        """The network, of as many classes as the dataset has."""
        config = self.config
        model = networks.make(config.model, self.feed.classes, config.dtype, self.shape)
        if config.pretrained and not isinstance(model, VisionTransformer):
            raise ValueError(f"--pretrained is for ViTs; got --model {config.model}")
        return model

    def make_state(self) -> State:
        """The state before the first step, but for weights from a file."""
        images = jnp.zeros((1, *self.shape))
        variables = self.model.init(
            jax.random.key(self.config.seed), images, train=True
        )
        params = variables["params"]
        return State(
            step=jnp.int32(0),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=self.phases[0].optimizer.init(params),
            sums=no_sums(),
        )

    def init(self) -> State:
        """The state before the first step, in its place on the devices."""
        if self.weights is None:
            return jax.jit(self.make_state, out_shardings=self.places)()

        def start(params):
            opt_state = self.phases[0].optimizer.init(params)
            return self.make_state()._replace(params=params, opt_state=opt_state)

        return jax.jit(start, out_shardings=self.places)(self.weights)

    def prepare(self, images: jax.Array) -> jax.Array:
        """The network's input, from uint8 images."""
        mean, std = self.feed.mean, self.feed.std
        if self.config.pretrained:
            mean = std = 0.5
        images = feeds.resize(images, self.shape[0])
        images = augmentation.normalize(images, mean, std)
        return jnp.broadcast_to(images, (*images.shape[:-1], self.shape[-1]))

    def pure_step(self, phase: Phase) -> Callable[..., State]:
        """One step on a batch of the feed, augmented on the device."""
        update = self.update(phase, self.loss)

        def step(state, arrays, batch):
            key = jax.random.fold_in(jax.random.key(self.config.seed), state.step)
            crops, dropout = jax.random.split(key)
            images, labels = self.feed.take(arrays, batch)
            if self.augments:
                flat = images.reshape(-1, *images.shape[-3:])
                images = augmentation.augment(crops, flat).reshape(images.shape)
            params, opt_state, out = update(
                state.params,
                state.opt_state,
                self.prepare(images),
                labels,
                batch_stats=state.batch_stats,
                key=dropout,
            )
            batch_stats, sums = out.aux["batch_stats"], self.add(state, out)
            return State(state.step + 1, params, batch_stats, opt_state, sums)

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
            jax.nn.one_hot(labels, self.feed.classes), self.config.label_smoothing
        )
        logits = logits.astype(jnp.float32)
        return optax.softmax_cross_entropy(logits, targets).mean(), {
            "accuracy": jnp.mean(logits.argmax(-1) == labels),
            "batch_stats": updates.get("batch_stats", {}),
        }

    def evaluate(self, state: State) -> dict[str, float]:
        """Loss, accuracy and calibration of the slow weights on the judging images.

        With label noise, also the share of the given wrong labels that they predict.
        """
        judge = self.test if self.parts.valid is None else self.parts.valid
        found = self.measure(state, judge, self.judge)
        if self.parts.flipped is not None:
            flipped = self.measure(state, self.parts.flipped, "flipped")
            found["flipped_accuracy"] = flipped["flipped_accuracy"]
        return found

    def conclude(self, state: State) -> dict[str, float]:
        """The same on the test images, if they haven't been used before."""
        return {} if self.judge == "test" else self.measure(state, self.test, "test")

    def measure(self, state: State, examples: Any, name: str) -> dict[str, float]:
        """Loss, accuracy and calibration error of the slow weights on some examples.

        The calibration error is the expected one (ECE; Guo et al. 2017), with bins of
        equal width.
        """
        params = self.slow_weights(state)
        sums, pending = np.zeros(3 + BINS), np.zeros(3 + BINS)
        for batch in self.feed.evaluation(examples):
            # Read one batch late, so the device works while the next one is prepared.
            sums += np.asarray(pending, np.float64)
            pending = self.evaluate_batch(params, state.batch_stats, *batch)
        loss, correct, count, *gaps = sums + np.asarray(pending, np.float64)
        return {
            f"{name}_loss": float(loss / count),
            f"{name}_accuracy": float(correct / count),
            f"{name}_ece": float(np.sum(np.abs(gaps)) / count),
        }

    @functools.cached_property
    def evaluate_batch(self) -> Callable[..., jax.Array]:
        """Sums over the images that count.

        Sums of losses, of correct answers, of images, and, in each bin of confidences,
        of correct answers less confidence.
        """

        @functools.partial(jax.jit, out_shardings=self.layout.everywhere)
        def evaluate(params, batch_stats, images, labels, mask):
            variables = {"params": params, "batch_stats": batch_stats}
            logits = self.model.apply(variables, self.prepare(images), train=False)
            logits = logits.astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            right = (logits.argmax(-1) == labels).astype(jnp.float32)
            confidence = jax.nn.softmax(logits).max(-1)
            bins = jnp.ceil(confidence * BINS).astype(jnp.int32) - 1
            gaps = jnp.where(mask, right - confidence, 0.0)
            gaps = jnp.zeros(BINS).at[jnp.clip(bins, 0, BINS - 1)].add(gaps)
            sums = [jnp.sum(losses, where=mask), jnp.sum(right, where=mask), mask.sum()]
            return jnp.concatenate([jnp.stack(sums), gaps])

        return evaluate
