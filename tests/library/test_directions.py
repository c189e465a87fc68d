"""Directions: unit radius, which leaves are weights, and states of their own."""

import itertools

from flax import nnx
import flax.linen as nn
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.members import each


def direct(direction, g, p):
    return direction.update(g, direction.init(p), p)[0]


def weights_of(tree, **kwargs):
    """Which leaves ASAM takes for weights: where T is 2 at |p| = 2, and not 1."""
    p = jax.tree.map(lambda x: jnp.full(x.shape, 2.0), tree)
    g = jax.tree.map(jnp.ones_like, p)
    d = direct(lb.asam_direction(0.0, **kwargs), g, p)
    smallest = min(float(jnp.min(x)) for x in jax.tree.leaves(d))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): bool(
            jnp.max(x) > 2 * smallest
        )
        for path, x in jax.tree_util.tree_leaves_with_path(d)
    }


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Embed(3, 4)(x)
        x = nn.BatchNorm(use_running_average=True)(x)
        return nn.Dense(2)(nn.LayerNorm()(x))


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)


def test_names_in_flax_linen():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        init = jax.jit(Linen().init)
        variables = init(jax.random.key(0), jnp.zeros((1,), jnp.int32))
    assert weights_of(variables["params"]) == {
        "BatchNorm_0/bias": False,
        "BatchNorm_0/scale": True,
        "Dense_0/bias": False,
        "Dense_0/kernel": True,
        "Embed_0/embedding": True,
        "LayerNorm_0/bias": False,
        "LayerNorm_0/scale": True,
    }


def test_names_in_flax_nnx():
    params = nnx.state(NNX(nnx.Rngs(0)), nnx.Param)
    assert {
        name.removesuffix("/value"): w for name, w in weights_of(params).items()
    } == {
        "embed/embedding": True,
        "head/bias": False,
        "head/kernel": True,
        "norm/bias": False,
        "norm/scale": True,
    }


def test_names_in_boxed_linen_parameters():
    partitioned = nn.with_partitioning(nn.initializers.ones, ("in",))
    params = {"kernel": nn.Partitioned(jnp.ones(2), ("in",)), "bias": None}
    params["bias"] = partitioned(jax.random.key(0), (2,), jnp.float32)
    assert weights_of(params) == {"bias/value": False, "kernel/value": True}


def test_names_in_plain_trees():
    one = jnp.ones(1)
    assert weights_of(
        {"w": one, "b": one, "layer": {"value": one, "in_bias": one}}
    ) == {
        "w": True,
        "b": False,
        "layer/value": True,
        "layer/in_bias": False,
    }
    assert weights_of({"bias": [one, one], "kernel": (one, one)}) == {
        "bias/0": False,
        "bias/1": False,
        "kernel/0": True,
        "kernel/1": True,
    }


def test_the_user_names_the_weights():
    params = {"w": jnp.ones((2, 2)), "offset": jnp.ones(2)}
    is_matrix = lambda path, leaf: leaf.ndim > 1
    assert weights_of(params, weights=is_matrix) == {"w": True, "offset": False}
    # ... and through every member built on ASAM.
    grad = jax.grad(lambda p: jnp.sum(p["w"] ** 4) + jnp.sum(p["offset"] ** 2))
    extra = {"grad_fn": lambda p, i: grad(p)}
    for member in (lb.asam, lb.multistep_asam, lb.lookbehind_asam):
        marked = member(optax.sgd(0.1), weights=lambda path, leaf: False)
        sam = {
            lb.asam: lb.sam,
            lb.multistep_asam: lb.multistep_sam,
            lb.lookbehind_asam: lb.lookbehind_sam,
        }[member](optax.sgd(0.1), rho=0.5)
        got, _ = marked.update(grad(params), marked.init(params), params, **extra)
        want, _ = sam.update(grad(params), sam.init(params), params, **extra)
        jax.tree.map(np.testing.assert_array_equal, got, want)


VALUES = st.floats(-10, 10, width=32).filter(lambda x: abs(x) > 1e-3)


@given(g=st.lists(VALUES, min_size=1, max_size=8), scale=st.floats(1e-6, 1e6))
def test_sam_is_a_unit_vector_free_of_scale(g, scale):
    g = jnp.array(g, jnp.float32)
    d = direct(lb.sam_direction(), g, g)
    np.testing.assert_allclose(jnp.linalg.norm(d), 1, rtol=1e-5)
    np.testing.assert_allclose(direct(lb.sam_direction(), scale * g, g), d, rtol=1e-4)


@given(
    g=st.lists(VALUES, min_size=4, max_size=4),
    p=st.lists(VALUES, min_size=4, max_size=4),
    eta=st.floats(0, 1),
)
def test_asam_maximises_the_linear_gain_in_its_ball(g, p, eta):
    """‖T⁻¹ d‖ = 1, and no other point of that ball gains more than d."""
    g, p = jnp.array(g, jnp.float32), jnp.array(p, jnp.float32)
    t = jnp.abs(p) + jnp.float32(eta)
    d = direct(lb.asam_direction(eta), g, p)
    np.testing.assert_allclose(jnp.linalg.norm(d / t), 1, rtol=1e-4)
    others = jax.random.normal(jax.random.key(0), (200, 4))
    others = others / jnp.linalg.norm(others, axis=1, keepdims=True) * t[None]
    assert (jnp.sum(others * g[None], axis=1) <= jnp.sum(d * g) * 1.0001).all()


@pytest.mark.parametrize("direction", [lb.sam_direction(), lb.asam_direction()])
def test_complex_leaves_beside_real_ones(direction):
    p = {"kernel": jnp.array([1 + 1j], jnp.complex64), "bias": jnp.array([1.0])}
    g = {"kernel": jnp.array([0 - 3j], jnp.complex64), "bias": jnp.array([4.0])}
    d = direct(direction, g, p)
    assert d["kernel"].dtype == jnp.complex64
    assert d["bias"].dtype == jnp.float32
    np.testing.assert_allclose(d["kernel"].real, 0, atol=1e-7)
    assert d["kernel"].imag[0] < 0 < d["bias"][0]


# Friendly: uphill along what is special to the minibatch.


def uphill(optimizer, gradients, k=1):
    """The ascent steps of training with these clean gradients, and the state after.

    Parameters stay at zero, and every gradient of the climb is the clean one.
    """
    params = jax.tree.map(jnp.zeros_like, gradients[0])
    state = optimizer.init(params)
    found = []
    for g in gradients:
        points = [params]

        def grad_fn(p, i, g=g, points=points):
            jax.debug.callback(lambda p: points.append(p), p, ordered=True)
            return g

        _, state = optimizer.update(g, state, params, grad_fn=grad_fn)
        jax.effects_barrier()
        assert len(points) == k + 1
        for old, new in itertools.pairwise(points):
            found.append(jax.tree.map(lambda new, old: np.array(new - old), new, old))
    return found, state.direction_state.inner_states["perturbed"].inner_state


GRADIENTS = [jnp.array([6.0, 8.0]), jnp.array([3.0, 9.0]), jnp.array([3.0, 2.5])]


@pytest.mark.parametrize("k", each([1, 3], [3]))
def test_friendly_by_hand(k):
    """m is 0, (3, 4) and (3, 6.5): nothing, half of (6, 8), half of that and (3, 9).

    It is that of before all along the climb, and moves once a step, whatever k is.
    """
    optimizer = lb.sharpness_aware(
        optax.sgd(0.1), lb.friendly_direction(1.0, 0.5), lb.last_descent(), 2.0, k
    )
    steps, m = uphill(optimizer, GRADIENTS, k)
    # Less m, the gradients are (6, 8), (0, 5) and (0, -4).
    expected = np.repeat([[1.2, 1.6], [0.0, 2.0], [0.0, -2.0]], k, axis=0)
    np.testing.assert_allclose(steps, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(m, [3.0, 4.5], rtol=1e-6)


@pytest.mark.parametrize("reuse", [True, False])
def test_friendly_follows_the_clean_gradient_alone(reuse):
    """Not those of the climb."""
    optimizer = lb.sharpness_aware(
        optax.sgd(0.1),
        lb.friendly_direction(1.0, 0.5),
        lb.every_descent(),
        k=3,
        reuse_gradients=reuse,
    )
    params = jnp.ones(2)
    _, state = optimizer.update(
        GRADIENTS[0], optimizer.init(params), params, grad_fn=lambda p, i: 100 * p
    )
    m = state.direction_state.inner_states["perturbed"].inner_state
    np.testing.assert_allclose(m, [3.0, 4.0], rtol=1e-6)


def test_friendly_averages_in_float32():
    """1 − 0.9 would be 0.1016 in bfloat16."""
    optimizer = lb.friendly_sam(optax.sgd(0.1), decay=0.9)
    params = jnp.ones(1, jnp.bfloat16)
    state = optimizer.init(params)
    _, state = optimizer.update(params, state, params, grad_fn=lambda p, i: p)
    m = state.direction_state.inner_states["perturbed"].inner_state
    assert m.dtype == jnp.bfloat16
    np.testing.assert_array_equal(m, jnp.array([0.1], jnp.bfloat16))


def test_friendly_where_nothing_is_special():
    """The same gradient again: with σ = 1 and λ = 0 it climbs nowhere."""
    optimizer = lb.friendly_sam(optax.sgd(0.1), rho=0.5, decay=0.0)
    steps, _ = uphill(optimizer, [GRADIENTS[0], GRADIENTS[0]])
    np.testing.assert_allclose(np.linalg.norm(steps[0]), 0.5, rtol=1e-6)
    np.testing.assert_array_equal(steps[1], np.zeros(2))


@pytest.mark.parametrize("k", each([1, 2], [2]))
def test_friendly_with_a_mask(k):
    """As if the perturbed leaves were all there is; m is none of the others'."""
    make = lambda **options: lb.sharpness_aware(
        optax.sgd(0.1),
        lb.friendly_direction(1.0, 0.5),
        lb.last_descent(),
        2.0,
        k,
        **options,
    )
    masked = make(mask={"free": True, "fixed": False})
    both = [{"free": g, "fixed": 10 * g} for g in GRADIENTS]
    steps, m = uphill(masked, both, k)
    alone, m_alone = uphill(make(), GRADIENTS, k)
    for step, free in zip(steps, alone, strict=True):
        np.testing.assert_allclose(step["free"], free, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(step["fixed"], np.zeros(2))
    assert len(jax.tree.leaves(m)) == 1
    np.testing.assert_allclose(jax.tree.leaves(m)[0], m_alone, rtol=1e-6)


# Random: anywhere with equal probability.


def draws(number, like):
    direction = lb.random_direction(jax.random.key(0))

    def draw(key, _):
        d, key = direction.update(like, key)
        return key, d

    return jax.lax.scan(draw, direction.init(like), length=number)[1]


def test_random_is_uniform_on_the_sphere():
    number, dimension = 20_000, 6
    like = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    found = draws(number, like)
    d = np.concatenate(
        [found["kernel"].reshape(number, 4), found["bias"]], axis=1, dtype=np.float64
    )
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), 1, rtol=1e-5)
    # Each coordinate has variance 1/n, a square of one at most 3/n² (of a Gaussian).
    error = 4 / np.sqrt(number)
    assert (np.abs(d.mean(0)) < error / np.sqrt(dimension)).all()
    covariance = d.T @ d / number
    bound = error * np.sqrt(3) / dimension
    assert (np.abs(covariance - np.eye(dimension) / dimension) < bound).all()
    # Not only along axes or in one half: a fourth moment of 3 / (n (n + 2)).
    fourth = 3 / (dimension * (dimension + 2))
    assert (np.abs((d**4).mean(0) - fourth) < error * np.sqrt(105) / dimension**2).all()
    assert len({row.tobytes() for row in d}) == number


@pytest.mark.parametrize("k", each([1, 3], [3]))
def test_each_ascent_draws_a_direction(k):
    key = jax.random.key(5)
    optimizer = lb.sharpness_aware(
        optax.sgd(0.1), lb.random_direction(key), lb.last_descent(), 0.5, k
    )
    steps, after = uphill(optimizer, GRADIENTS, k)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 0.5, rtol=1e-6)
    assert len({step.tobytes() for step in steps}) == 3 * k
    assert (jax.random.key_data(after) != jax.random.key_data(key)).any()
    again, _ = uphill(optimizer, GRADIENTS, k)  # the key is in the state
    np.testing.assert_array_equal(steps, again)


def test_random_with_a_mask():
    optimizer = lb.sharpness_aware(
        optax.sgd(0.1),
        lb.random_direction(jax.random.key(5)),
        lb.last_descent(),
        0.5,
        mask={"free": True, "fixed": False},
    )
    (step,), _ = uphill(optimizer, [{"free": jnp.ones(2), "fixed": jnp.ones(3)}])
    np.testing.assert_allclose(np.linalg.norm(step["free"]), 0.5, rtol=1e-6)
    np.testing.assert_array_equal(step["fixed"], np.zeros(3))


def test_random_of_complex_and_narrow_leaves():
    like = {"c": jnp.zeros(50, jnp.complex64), "h": jnp.zeros(100, jnp.float16)}
    direction = lb.random_direction(jax.random.key(0))
    d = direct(direction, like, like)
    c, h = np.asarray(d["c"]), np.asarray(d["h"], np.float64)
    total = np.sum(np.abs(c) ** 2) + np.sum(h**2)
    np.testing.assert_allclose(total, 1, rtol=1e-3)
    assert (c.real != 0).all()
    assert (c.imag != 0).all()


def test_the_state_of_random_can_be_donated():
    key = jax.random.key(0)
    optimizer = lb.sharpness_aware(
        optax.sgd(0.1), lb.random_direction(key), lb.last_descent()
    )
    params = jnp.ones(2)
    step = jax.jit(
        lambda state: optimizer.update(params, state, params, grad_fn=lambda p, i: p)[
            1
        ],
        donate_argnums=0,
    )
    step(step(optimizer.init(params)))
    optimizer.init(params)  # the key is still there
    assert not key.is_deleted()
