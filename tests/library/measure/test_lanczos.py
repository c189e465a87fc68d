"""Lanczos' algorithm against matfree's."""

import jax
import jax.numpy as jnp
from matfree import decomp
import numpy as np
import pytest

from lookbehind_optax.measure import _lanczos


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [1, 9, 24])
def test_matrix_and_basis_are_those_of_matfree(n):
    rng = np.random.default_rng(5)
    half = rng.normal(size=(24, 24))
    matrix, start = jnp.asarray(half + half.T), jnp.asarray(rng.normal(size=24))
    ours = _lanczos.lanczos(lambda v: matrix @ v, start, range(n), n, jax.random.key(0))
    theirs = decomp.tridiag_sym(n)(lambda v, matrix: matrix @ v, start, matrix)
    np.testing.assert_allclose(ours.matrix, theirs.J_small, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.basis, theirs.Q_tall, rtol=1e-7, atol=1e-9)
