"""Flax linen, with BatchNorm: `linen_step` in place of the usual two lines.

python -m examples.with_linen
"""

import flax.linen as nn
from flax.training import train_state
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lookbehind_optax as lb


class TrainState(train_state.TrainState):
    """A training state with BatchNorm's statistics."""

    batch_stats: dict


@jax.jit
def train_step(state, images, labels):
    """One step; the statistics come from the unperturbed pass."""

    def loss_fn(params, images, labels):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updates = state.apply_fn(variables, images, mutable=["batch_stats"])
        updates["accuracy"] = jnp.mean(logits.argmax(-1) == labels)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), updates

    return lb.linen_step(
        state, loss_fn, images, labels, has_aux=True, mutable=["batch_stats"]
    )


def main():
    """Trains on scikit-learn's digits."""
    images, labels = load_digits(return_X_y=True)
    images, labels = jnp.array(images, jnp.float32) / 16, jnp.array(labels)
    norm = nn.BatchNorm(use_running_average=False)
    model = nn.Sequential([nn.Dense(64), norm, nn.relu, nn.Dense(10)])
    state = TrainState.create(
        apply_fn=model.apply,
        tx=lb.lookbehind_sam(optax.sgd(0.1, momentum=0.9), rho=0.05, k=2, alpha=0.5),
        **jax.jit(model.init)(jax.random.key(0), images),
    )
    for epoch in range(3):
        orders = jax.random.permutation(jax.random.key(epoch), 1792).reshape(28, 64)
        accuracies = []
        for order in orders:
            state, out = train_step(state, images[order], labels[order])
            accuracies.append(out.aux["accuracy"])
        print(f"epoch {epoch}: training accuracy {sum(accuracies) / 28:.3f}")


if __name__ == "__main__":
    main()
