"""A network, and a run of the server over all rounds."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples.federated.clients import local_batches
from examples.federated.config import Config
from examples.images import data


class MLP(nn.Module):
    """One hidden layer; a convolution with weights for each client is slow on CPUs."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits (batch, classes) of images (batch, height, width, channels)."""
        x = nn.relu(nn.Dense(64)(images.reshape(len(images), -1)))
        return nn.Dense(self.classes)(x)


class Problem:
    """A dataset and its network.

    Attributes:
      train: normalized images (n, height, width, channels), and labels (n,).
      test: the same, on the device.
      model: the network.
      accuracy: percentage of the test images that parameters classify as labeled.
    """

    def __init__(self, dataset: data.Dataset):
        """Normalizes the images."""

        def normalized(examples):
            images = (examples.images / np.float32(255) - dataset.mean) / dataset.std
            return images, examples.labels

        self.train = normalized(dataset.train)
        self.test = jax.device_put(normalized(dataset.test))
        self.model: Any = MLP(dataset.classes)  # Flax types `apply` as returning tuples
        self.accuracy = jax.jit(self._accuracy)

    def init(self, seed: int) -> Any:
        """Initial parameters."""
        return self.model.init(jax.random.key(seed), self.test[0][:1])

    def loss(self, params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        """Mean cross-entropy."""
        logits = self.model.apply(params, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    def _accuracy(self, params):
        images, labels = self.test
        return 100 * jnp.mean(self.model.apply(params, images).argmax(-1) == labels)


def train(
    config: Config,
    problem: Problem,
    federated_round: Callable,
    steps: int,
    clients: list[np.ndarray],
    seed: int,
) -> Iterator[tuple[Any, Any]]:
    """One run, which yields the server's model and its average after each round.

    Until the last quarter of the rounds begins, the average is the model itself.
    """
    images, labels = problem.train
    params = average = problem.init(seed)
    start = config.rounds - config.rounds // 4
    for i in range(config.rounds):
        rng = np.random.default_rng((seed, i))
        chosen = rng.choice(config.clients, config.sampled, replace=False)
        sizes = np.array([len(clients[c]) for c in chosen], np.float32)
        indices = np.stack(
            [local_batches(rng, clients[c], steps, config.batch_size) for c in chosen]
        )
        params = federated_round(params, sizes, (images[indices], labels[indices]))
        # The mean of n + 1 models is that of n, moved by 1 / (n + 1) to the new one.
        n = max(0, i - start)
        average = optax.incremental_update(params, average, 1 / (n + 1))
        yield params, average
