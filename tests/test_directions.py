"""Directions: unit radius, and which leaves are weights."""

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
        variables = Linen().init(jax.random.key(0), jnp.zeros((1,), jnp.int32))
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


def test_the_user_tells_weights():
    params = {"w": jnp.ones((2, 2)), "offset": jnp.ones(2)}
    is_matrix = lambda path, leaf: leaf.ndim > 1
    assert weights_of(params, weights=is_matrix) == {"w": True, "offset": False}
    # ... and through every member built on ASAM.
    grad = jax.grad(lambda p: jnp.sum(p["w"] ** 4) + jnp.sum(p["offset"] ** 2))
    extra = {"grad_fn": lambda p, i: grad(p)}
    for member in (lb.asam, lb.multistep_asam, lb.lookbehind_asam):
        told = member(optax.sgd(0.1), weights=lambda path, leaf: False)
        sam = {
            lb.asam: lb.sam,
            lb.multistep_asam: lb.multistep_sam,
            lb.lookbehind_asam: lb.lookbehind_sam,
        }[member](optax.sgd(0.1), rho=0.5)
        got, _ = told.update(grad(params), told.init(params), params, **extra)
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
