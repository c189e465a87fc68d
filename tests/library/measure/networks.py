"""A small network with data, and the same loss in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np


def losses(params, x, y):
    """Of each example: its squared error under a tanh network."""
    hidden = jnp.tanh(x @ params["in"]["kernel"] + params["in"]["bias"][None])
    return jnp.sum((hidden @ params["out"]["kernel"] - y) ** 2, axis=-1)


def numpy_loss(params, x, y):
    """Their mean."""
    p = jax.tree.map(np.asarray, params)
    hidden = np.tanh(x @ p["in"]["kernel"] + p["in"]["bias"])
    return np.mean(np.sum((hidden @ p["out"]["kernel"] - y) ** 2, axis=-1))


def network(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    params = {
        "in": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)},
        "out": {"kernel": rng.normal(size=(4, 2))},
    }
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


def examples(count=23, dtype=np.float64):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(count, 3)), rng.normal(size=(count, 2))
    return x.astype(dtype), y.astype(dtype)


def batched(arrays, size):
    count = len(arrays[0])
    return [
        tuple(a[start : start + size] for a in arrays)
        for start in range(0, count, size)
    ]
