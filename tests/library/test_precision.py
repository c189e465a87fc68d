"""Norms and angles in float32 or wider."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookbehind_optax import _precision


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_norm(dtype):
    with jax.enable_x64(dtype == "float64"):
        norm = _precision.norm({"a": jnp.ones(70_000, dtype)})
        assert norm.dtype == ("float64" if dtype == "float64" else "float32")
        np.testing.assert_allclose(norm, np.sqrt(70_000), rtol=1e-6)


def test_norm_of_mixed_leaves():
    tree = {
        "half": jnp.array([3.0], jnp.float16),
        "brain": jnp.array([4.0], jnp.bfloat16),
        "complex": jnp.array([12j], jnp.complex64),
    }
    assert _precision.norm(tree) == 13
    assert _precision.widen(tree)["complex"].dtype == jnp.complex64


def test_norm_of_nothing():
    assert _precision.norm({}) == 0


def test_cosine():
    a = {"x": jnp.array([1.0, 0.0]), "y": jnp.array([0.0])}
    b = {"x": jnp.array([1.0, 1.0]), "y": jnp.array([jnp.sqrt(2.0)])}
    np.testing.assert_allclose(_precision.cosine(a, b), 0.5, rtol=1e-6)
    minus = jax.tree.map(jnp.negative, b)
    np.testing.assert_allclose(_precision.cosine(b, minus), -1, rtol=1e-6)
    assert _precision.cosine(a, jax.tree.map(jnp.zeros_like, a)) == 0


def test_cosine_clamps_norms_as_the_official_code_does():
    tiny = jnp.array([1e-9])
    np.testing.assert_allclose(_precision.cosine(tiny, tiny), 1e-2, rtol=1e-5)
