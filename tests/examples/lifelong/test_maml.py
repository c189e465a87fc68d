"""The gradient of C-MAML's loss goes through its inner steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.lifelong import replay
from examples.lifelong.maml import make_meta_loss
from examples.lifelong.replay import Batch


def quadratic(params, batch):
    """Not quite: its third derivatives aren't zero."""
    x = batch.images.reshape(len(batch.labels), -1) * params["scale"]
    error = jnp.tanh(x @ params["kernel"]) - batch.labels
    return jnp.sum(batch.weights * error**2) / jnp.sum(batch.weights)


def meta_problem(dtype):
    rng = np.random.default_rng(0)

    def batch(n, weights):
        images = rng.normal(size=(n, 2, 2, 1))
        return Batch(
            *map(jnp.asarray, (images, rng.normal(size=n), np.zeros(n), weights))
        )

    params = {"kernel": rng.normal(size=4), "scale": np.array(0.7)}
    current, recalled = batch(6, np.ones(6)), batch(3, np.array([1.0, 1.0, 0.0]))
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, current, recalled))


@pytest.mark.parametrize("clip", [10.0, 0.3])
def test_the_meta_gradient_is_a_finite_difference(x64, clip):
    params, current, recalled = meta_problem(jnp.float64)
    meta_loss = jax.jit(
        make_meta_loss(quadratic, learning_rate=0.2, steps=3, clip=clip)
    )
    rng, size = np.random.default_rng(1), 1e-5
    way = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

    def at(step):
        moved = jax.tree.map(lambda p, w: p + step * w, params, way)
        return meta_loss(moved, current, recalled)

    difference = (at(size) - at(-size)) / (2 * size)
    grads = jax.grad(meta_loss)(params, current, recalled)
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, w: jnp.sum(g * w), grads, way)))
    np.testing.assert_allclose(along, difference, rtol=1e-8)
    # The first-order approximation would not pass.
    fast, rest = (
        dict(params),
        [jax.tree.map(lambda x, i=i: x[i::3], current) for i in range(3)],
    )
    for part in rest:
        g = jax.grad(quadratic)(fast, part)
        fast = jax.tree.map(lambda f, g: f - 0.2 * jnp.clip(g, -clip, clip), fast, g)
    np.testing.assert_allclose(
        meta_loss(params, current, recalled),
        quadratic(fast, replay.join(current, recalled)),
        rtol=1e-12,
    )
    first = jax.grad(quadratic)(fast, replay.join(current, recalled))
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, w: jnp.sum(g * w), first, way)))
    assert abs(along / difference - 1) > 1e-2
