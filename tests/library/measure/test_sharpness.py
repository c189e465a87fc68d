"""Sharpness against its formula, brute force and hand-worked numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookbehind_optax import asam_direction
from lookbehind_optax import friendly_direction
from lookbehind_optax import measure
from lookbehind_optax import random_direction
from tests.library.measure.networks import batched
from tests.library.measure.networks import examples
from tests.library.measure.networks import losses
from tests.library.measure.networks import network
from tests.library.measure.networks import numpy_loss
from tests.library.members import each


def expected(params, arrays, rho, m, steps=1, adaptive=False):
    """Group by group, with a flat vector and NumPy."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    biases = np.concatenate(
        [
            np.full(leaf.size, "bias" in jax.tree_util.keystr(path))
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        ]
    )

    @jax.jit
    @jax.grad
    def gradient(flat, x, y):
        return jnp.mean(losses(unravel(flat), x, y))

    total = 0.0
    for x, y in batched(arrays, m):
        there = np.array(flat)
        for _ in range(steps):
            g = np.array(gradient(there, x, y))
            t = np.where(biases, 1.0, np.abs(there)) if adaptive else 1.0
            there = there + rho / steps * t**2 * g / np.linalg.norm(t * g)
        total += len(x) * numpy_loss(unravel(there), x, y)
    return total / len(arrays[0])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("m", "batch", "steps"),
    each([(1, 8, 1), (5, 4, 3), (8, 4, 1), (8, 40, 3), (23, 5, 1)], [(5, 4, 3)]),
)
def test_it_is_its_formula(m, batch, steps):
    params, arrays = network(), examples()
    rho = [0.1, 0.5]
    found = measure.sharpness(
        losses, params, batched(arrays, batch), rho, m=m, steps=steps
    )
    wanted = np.array([expected(params, arrays, r, m, steps) for r in rho])
    np.testing.assert_allclose(found.perturbed_loss, wanted, rtol=1e-12)
    np.testing.assert_allclose(found.loss, numpy_loss(params, *arrays), rtol=1e-12)
    np.testing.assert_allclose(found.sharpness, wanted - found.loss, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("steps", each([1, 4], [4]))
def test_adaptive(steps):
    params, arrays = network(), examples()
    found = measure.sharpness(
        losses,
        params,
        batched(arrays, 9),
        0.3,
        m=6,
        steps=steps,
        direction=asam_direction(eta=0.0),
    )
    wanted = expected(params, arrays, 0.3, 6, steps, adaptive=True)
    np.testing.assert_allclose(found.perturbed_loss, [wanted], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_batches_are_the_groups_by_default():
    params, arrays = network(), examples()
    batches = batched(arrays, 7)
    found = measure.sharpness(losses, params, batches, 0.2)
    np.testing.assert_array_equal(
        found.perturbed_loss,
        measure.sharpness(losses, params, batches, 0.2, m=7).perturbed_loss,
    )


@pytest.mark.thorough
@pytest.mark.usefixtures("x64")
def test_no_random_direction_rises_above_several_steps():
    params, (x, y) = network(), examples()
    rho = 0.05
    found = measure.sharpness(losses, params, [(x, y)], rho, steps=20)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    rng = np.random.default_rng(2)
    loss = lambda p: jnp.mean(losses(unravel(p), x, y))
    d = rng.normal(size=(2000, flat.size))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    highest = jnp.max(jax.jit(jax.vmap(loss))(flat[None] + rho * d))
    assert highest <= found.perturbed_loss[0]
    # And it is no more than the ball allows: the gradient and the curvature along it.
    top = measure.hessian_eigenvalues(losses, params, [(x, y)]).values[0]
    slope = np.linalg.norm(jax.grad(loss)(flat))
    bound = found.loss + rho * slope + rho**2 / 2 * top
    assert found.perturbed_loss[0] <= 1.01 * bound


def test_each_group_has_a_random_direction_of_its_own():
    """The same for all radii."""
    slope, params = jnp.array([1.0, 2.0, -3.0]), jnp.zeros(3)
    direction = random_direction(jax.random.key(0))
    found = measure.sharpness(
        lambda w, x: x * jnp.dot(slope, w),
        params,
        [jnp.ones(1), jnp.ones(1)],
        [1.0, 2.0],
        direction=direction,
    )
    first, state = direction.update(slope, direction.init(params))
    second, _ = direction.update(slope, state)
    wanted = slope @ (first + second) / 2
    np.testing.assert_allclose(found.sharpness, [wanted, 2 * wanted], rtol=1e-6)


def test_empty_batches_before_groups():
    batches = [jnp.ones(0), jnp.ones(4)]
    found = measure.sharpness(lambda w, x: w * x, jnp.ones(()), batches, 0.5, m=2)
    np.testing.assert_allclose(found.perturbed_loss, [1.5])


def test_a_flat_loss_has_no_sharpness():
    found = measure.sharpness(lambda w, x: 0 * w * x, jnp.ones(()), [jnp.ones(3)], 0.1)
    np.testing.assert_array_equal(found.sharpness, [0.0])


def test_parameters_of_few_bits_are_perturbed_in_float32():
    params = network(jnp.bfloat16)
    x, y = examples(dtype=np.float32)
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    batches = [(x, y)]
    found = measure.sharpness(losses, params, batches, 1e-3)
    wanted = measure.sharpness(losses, wide, batches, 1e-3)
    np.testing.assert_array_equal(found.perturbed_loss, wanted.perturbed_loss)
    assert found.sharpness[0] > 0


def test_under_jit():
    params, (x, y) = network(jnp.float32), examples(dtype=np.float32)
    measured = functools.partial(measure.sharpness, losses, rho=[0.1, 0.2], m=5)
    batches = [(jnp.asarray(x), jnp.asarray(y))]
    found = jax.jit(measured)(params, batches)
    for a, b in zip(found, measured(params, batches), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rho": 0.0}, ValueError, "rho must be positive and finite; got 0.0"),
        ({"rho": [0.1, -1.0]}, ValueError, "rho must be positive and finite"),
        ({"rho": []}, ValueError, "rho must be a positive number or a vector"),
        ({"rho": [[0.1]]}, ValueError, "rho must be a positive number or a vector"),
        ({"rho": "large"}, ValueError, "rho must be a positive number or a vector"),
        ({"m": 0}, ValueError, "m must be at least 1; got 0"),
        ({"steps": 0}, ValueError, "steps must be at least 1; got 0"),
        ({"batches": []}, ValueError, "batches must hold at least one example"),
        ({"batches": [], "m": 3}, ValueError, "batches must hold at least one example"),
        ({"params": 3}, TypeError, "params must hold floating-point"),
        ({"direction": asam_direction}, TypeError, "direction must be an optax.Grad"),
        ({"direction": friendly_direction()}, TypeError, "must be passed step and i"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {
        "losses_fn": lambda w, x: w * x,
        "params": jnp.ones(()),
        "batches": [jnp.ones(3)],
        "rho": 0.1,
    }
    with pytest.raises(error, match=message):
        measure.sharpness(**{**arguments, **change})


# The climb.


@pytest.mark.usefixtures("x64")
def test_a_climb_is_the_ascent_of_multistep_sam():
    params, (x, y) = network(), examples()
    found = measure.climb(losses, params, (x, y), rho=0.2, k=3)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    there, first = np.array(flat), None
    for i in range(4):
        p = unravel(jnp.asarray(there))
        grads = jax.grad(lambda p: jnp.mean(losses(p, x, y)))(p)
        g = np.array(jax.flatten_util.ravel_pytree(grads)[0])
        first = g if first is None else first
        cosine = g @ first / np.linalg.norm(g) / np.linalg.norm(first)
        np.testing.assert_allclose(found.losses[i], numpy_loss(p, x, y), rtol=1e-12)
        np.testing.assert_allclose(found.cosines[i], cosine, rtol=1e-12)
        there = there + 0.2 * g / np.linalg.norm(g)


def test_bad_climbs():
    loss, w, x = (lambda w, x: w * x), jnp.ones(()), jnp.ones(3)
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        measure.climb(loss, w, x, 0.1, 0)
    with pytest.raises(ValueError, match="rho must be positive"):
        measure.climb(loss, w, x, -0.1, 2)
