"""Haiku, and every library whose models are a pair of functions `init` and `apply`.

python -m examples.with_haiku
"""

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import lookbehind_optax as lb


def network(images):
    """Logits of the ten digits."""
    x = hk.Linear(64)(images)
    x = hk.BatchNorm(True, True, decay_rate=0.9)(x, is_training=True)
    return hk.Linear(10)(jax.nn.relu(x))


model = hk.without_apply_rng(hk.transform_with_state(network))


def loss_fn(params, images, labels, *, model_state):
    """The state isn't an example: it goes in by keyword, and comes back in the aux."""
    logits, model_state = model.apply(params, model_state, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), (model_state, jnp.mean(logits.argmax(-1) == labels))


def main():
    """Trains on scikit-learn's digits."""
    images, labels = load_digits(return_X_y=True)
    images, labels = jnp.array(images, jnp.float32) / 16, jnp.array(labels)
    params, model_state = jax.jit(model.init)(jax.random.key(0), images)
    optimizer = lb.lookbehind_sam(optax.sgd(0.1, momentum=0.9), k=2, alpha=0.5)
    train_step = jax.jit(lb.make_step(loss_fn, optimizer, has_aux=True))
    state = optimizer.init(params)
    for epoch in range(3):
        orders = jax.random.permutation(jax.random.key(epoch), 1792).reshape(28, 64)
        accuracies = []
        for order in orders:
            params, state, out = train_step(
                params, state, images[order], labels[order], model_state=model_state
            )
            model_state, accuracy = out.aux
            accuracies.append(accuracy)
        print(f"epoch {epoch}: training accuracy {sum(accuracies) / 28:.3f}")


if __name__ == "__main__":
    main()
