"""The networks whose steps are measured: a loss, its parameters, and a batch."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.speed.precisions import Precision
from benchmarks.speed.precisions import PRECISIONS
from examples.images.models import MODELS
from examples.images.models import Transformer

DECODERS = {
    "decoder": Transformer(),
    "decoder-110m": Transformer(
        vocabulary=16_384, width=768, heads=12, layers=12, length=1024
    ),
}
# The networks measured by default, and their batches on a CPU and on other devices.
BATCH_SIZES = {
    "wrn-28-2": (16, 128),
    "resnet34": (8, 128),
    "vit-small": (8, 128),
    "decoder": (16, 64),
}
OTHERS = (8, 8)  # batches of networks that aren't measured by default
NAMES = (*MODELS, *DECODERS)


class Network(NamedTuple):
    """What is trained.

    Attributes:
      loss: from parameters and batch to a mean over the examples.
      params: in float32.
      batch: of one step.
    """

    loss: Callable[[Any, Any], jax.Array]
    params: Any
    batch: Any

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))


def default_batch_size(name: str) -> int:
    """The default batch size of a step."""
    on_cpu, elsewhere = BATCH_SIZES.get(name, OTHERS)
    return on_cpu if jax.default_backend() == "cpu" else elsewhere


def next_token_loss(decoder: Transformer) -> Callable[[Any, Any], jax.Array]:
    """The loss of parameters and tokens (batch, length)."""

    def loss(params, tokens) -> jax.Array:
        # All tokens go in, so that sizes are round; the last has no successor.
        logits: Any = decoder.apply(params, tokens)
        return optax.softmax_cross_entropy_with_integer_labels(
            logits[:, :-1], tokens[:, 1:]
        ).mean()

    return loss


def make(name: str, precision: Precision, batch_size: int | None = None) -> Network:
    """A network by name, on random examples.

    Args:
      name: one of `NAMES`. Image classifiers get images of 32×32 pixels in ten classes
        (of 224×224 in a thousand, if their stem is for ImageNet), decoders sequences of
        their full length.
      precision: of its activations. How float32 is multiplied is up to the caller's
        `jax.default_matmul_precision`.
      batch_size: number of images or sequences.
    """
    examples = batch_size or default_batch_size(name)
    dtype, random = PRECISIONS[precision].dtype, np.random.default_rng(0)
    if name in DECODERS:
        decoder = DECODERS[name].clone(dtype=dtype)
        shape = (examples, decoder.length)
        tokens = random.integers(decoder.vocabulary, size=shape, dtype=np.int32)
        params = jax.jit(decoder.init)(jax.random.key(0), tokens)
        return Network(next_token_loss(decoder), params, jnp.asarray(tokens))

    large = name.endswith("-imagenet") or name == "vit-b16"
    classes, side = (1000, 224) if large else (10, 32)
    model = MODELS[name](classes=classes, dtype=dtype)
    images = random.standard_normal((examples, side, side, 3), np.float32)
    labels = random.integers(classes, size=examples, dtype=np.int32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])

    def classification_loss(params, batch) -> jax.Array:
        images, labels = batch
        logits, _ = model.apply(
            {**variables, "params": params}, images, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    batch = jnp.asarray(images), jnp.asarray(labels)
    return Network(classification_loss, variables["params"], batch)
