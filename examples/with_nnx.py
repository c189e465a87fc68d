"""Flax NNX, with BatchNorm and dropout: `nnx_step` in place of two lines.

python -m examples.with_nnx
"""

from flax import nnx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lookbehind_optax as lb


class Model(nnx.Module):
    """One hidden layer, normalized and with dropout."""

    def __init__(self, rngs: nnx.Rngs):
        """Draws the initial weights."""
        self.hidden = nnx.Linear(64, 64, rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        """Logits of the ten digits."""
        return self.out(self.dropout(nnx.relu(self.norm(self.hidden(images)))))


@nnx.jit
def train_step(model, optimizer, images, labels):
    """One step; only the unperturbed pass updates statistics and random streams."""

    def loss_fn(model, images, labels):
        logits = model(images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), jnp.mean(logits.argmax(-1) == labels)

    return lb.nnx_step(model, optimizer, loss_fn, images, labels, has_aux=True)


def main():
    """Trains on scikit-learn's digits."""
    images, labels = load_digits(return_X_y=True)
    images, labels = jnp.array(images, jnp.float32) / 16, jnp.array(labels)
    model = Model(nnx.Rngs(0))
    lookbehind = lb.lookbehind_sam(optax.sgd(0.1, momentum=0.9), k=2, alpha=0.5)
    optimizer = nnx.Optimizer(model, lookbehind, wrt=nnx.Param)
    for epoch in range(3):
        orders = jax.random.permutation(jax.random.key(epoch), 1792).reshape(28, 64)
        accuracies = []
        for order in orders:
            out = train_step(model, optimizer, images[order], labels[order])
            accuracies.append(out.aux)
        print(f"epoch {epoch}: training accuracy {sum(accuracies) / 28:.3f}")


if __name__ == "__main__":
    main()
