"""Equinox: a module goes into the step as it is, under `eqx.filter_jit`.

python -m examples.with_equinox
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lookbehind_optax as lb


def main():
    """Trains on scikit-learn's digits."""
    images, labels = load_digits(return_X_y=True)
    images, labels = jnp.array(images, jnp.float32) / 16, jnp.array(labels)
    model = eqx.nn.MLP(64, 10, width_size=64, depth=1, key=jax.random.key(0))

    def loss_fn(model, images, labels):
        logits = jax.vmap(model)(images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), jnp.mean(logits.argmax(-1) == labels)

    optimizer = lb.lookbehind_sam(optax.sgd(0.1, momentum=0.9), k=2, alpha=0.5)
    train_step = eqx.filter_jit(lb.make_step(loss_fn, optimizer, has_aux=True))
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    for epoch in range(3):
        orders = jax.random.permutation(jax.random.key(epoch), 1792).reshape(28, 64)
        accuracies = []
        for order in orders:
            model, state, out = train_step(model, state, images[order], labels[order])
            accuracies.append(out.aux)
        print(f"epoch {epoch}: training accuracy {sum(accuracies) / 28:.3f}")
    return model


if __name__ == "__main__":
    main()
