"""Eigenvalues, trace and spectrum against dense linear algebra."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookbehind_optax import measure
from tests.library.measure.networks import batched
from tests.library.measure.networks import examples
from tests.library.measure.networks import losses
from tests.library.measure.networks import network


@functools.cache
def dense():
    """The Hessian of the mean loss, (24, 24), by reverse mode twice."""
    params, (x, y) = network(), examples()
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def loss(flat):
        return jnp.mean(losses(unravel(flat), x, y))

    return np.array(jax.jit(jax.jacrev(jax.jacrev(loss)))(flat))


def batches(size=10):
    return batched(examples(), size)


@pytest.mark.usefixtures("x64")
def test_products():
    params = network()
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    v = np.random.default_rng(3).normal(size=flat.shape)
    found = measure.hessian_vector_product(losses, params, unravel(v), batches())
    np.testing.assert_allclose(
        jax.flatten_util.ravel_pytree(found)[0], dense() @ v, rtol=1e-10
    )


@pytest.mark.usefixtures("x64")
def test_all_eigenvalues_and_vectors():
    found = measure.hessian_eigenvalues(losses, network(), batches(), count=24)
    values, vectors = np.linalg.eigh(dense())
    np.testing.assert_allclose(found.values, values[::-1], atol=1e-10)
    for i in range(24):
        v = jax.tree.map(lambda leaf, i=i: leaf[i], found.vectors)
        v = np.array(jax.flatten_util.ravel_pytree(v)[0])
        np.testing.assert_allclose(abs(v @ vectors[:, -1 - i]), 1, rtol=1e-8)
    assert np.all(found.errors < 1e-10)


@pytest.mark.usefixtures("x64")
def test_few_iterations_find_the_largest_and_know_their_errors():
    values = np.linalg.eigvalsh(dense())[::-1]
    found = measure.hessian_eigenvalues(
        losses, network(), batches(), count=2, iterations=9
    )
    for value, error in zip(found.values, found.errors, strict=True):
        assert np.min(np.abs(values - value)) <= error
    assert found.errors[0] < 0.1 * values[0]
    np.testing.assert_allclose(found.values[0], values[0], rtol=1e-2)


@pytest.mark.usefixtures("x64")
def test_multiple_eigenvalues():
    # H = diag(5, 5, 5, -1, 0), whose Krylov spaces have three dimensions.
    curvature = jnp.array([5.0, 5.0, 5.0, -1.0, 0.0])
    loss = lambda w, x: x * jnp.sum(curvature * w**2) / 2
    found = measure.hessian_eigenvalues(loss, jnp.ones(5), [jnp.ones(3)], count=5)
    np.testing.assert_allclose(found.values, [5, 5, 5, 0, -1], atol=1e-12)
    gram = found.vectors @ found.vectors.T
    np.testing.assert_allclose(gram, np.eye(5), atol=1e-12)


@pytest.mark.thorough
def test_in_float32_orthogonality_holds():
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.normal(size=(200, 200)))[0].astype(np.float32)
    spectrum = np.concatenate([[1000.0, 100.0], np.linspace(0, 1, 198)])
    matrix = jnp.asarray((basis * spectrum.astype(np.float32)) @ basis.T)
    loss = lambda w, x: x * jnp.vdot(w, matrix @ w, precision="highest") / 2
    found = measure.hessian_eigenvalues(loss, jnp.ones(200), [jnp.ones(2)], count=4)
    np.testing.assert_allclose(found.values[:2], [1000.0, 100.0], rtol=1e-4)
    assert found.values[2] < 1.1  # no ghost of the first two
    gram = found.vectors @ found.vectors.T
    np.testing.assert_allclose(gram, np.eye(4), atol=1e-4)


@pytest.mark.usefixtures("x64")
def test_trace():
    found = measure.hessian_trace(losses, network(), batches(), draws=400)
    trace = np.trace(dense())
    assert abs(found.mean - trace) < 4 * found.standard_error
    np.testing.assert_allclose(found.mean, np.mean(found.draws), rtol=1e-12)
    # Var(v'Hv) = 2 sum of squares off the diagonal, for random signs.
    h = dense()
    variance = 2 * (np.sum(h**2) - np.sum(np.diag(h) ** 2))
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance / 400), rtol=0.15)


def test_a_single_draw_has_no_standard_error():
    found = measure.hessian_trace(
        lambda w, x: x * w**2, jnp.ones(()), [jnp.ones(2)], draws=1
    )
    assert np.isnan(found.standard_error)


@pytest.mark.thorough
@pytest.mark.usefixtures("x64")
def test_spectrum_has_the_moments_of_the_eigenvalues():
    found = measure.hessian_spectrum(
        losses, network(), batches(), draws=100, iterations=3
    )
    values = np.linalg.eigvalsh(dense())
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-12)
    for power in (1, 2, 3):
        moments = np.sum(found.weights * found.nodes**power, axis=1)
        error = moments.std(ddof=1) / np.sqrt(len(moments))
        assert abs(moments.mean() - np.mean(values**power)) < 4 * error


@pytest.mark.usefixtures("x64")
def test_density_has_mass_one_where_the_eigenvalues_are():
    found = measure.hessian_spectrum(losses, network(), batches(), draws=2)
    values = np.linalg.eigvalsh(dense())
    at = np.linspace(values[0] - 5, values[-1] + 5, 4001)
    density = found.density(at, width=0.5)
    np.testing.assert_allclose(np.trapezoid(density, at), 1, rtol=1e-6)
    # With as many iterations as parameters, the points are the eigenvalues.
    np.testing.assert_allclose(found.nodes[0], values, atol=1e-8)


@pytest.mark.thorough
def test_under_jit():
    params, arrays = network(jnp.float32), examples(dtype=np.float32)
    eigenvalues = functools.partial(
        measure.hessian_eigenvalues, losses, count=2, iterations=2
    )
    batches = jax.tree.map(jnp.asarray, batched(arrays, 10))
    found = jax.jit(eigenvalues)(params, batches)
    np.testing.assert_allclose(
        found.values, eigenvalues(params, batches).values, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"count": 0}, ValueError, "count must be at least 1"),
        ({"count": 3}, ValueError, "count must be at most the 2 iterations and the 2"),
        ({"iterations": 0}, ValueError, "iterations must be at least 1"),
        ({"batches": []}, ValueError, "batches must hold at least one example"),
        ({"params": jnp.ones(2, jnp.complex64)}, TypeError, "params must be real"),
        ({"params": {}}, ValueError, "params must hold at least one parameter"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"params": jnp.ones(2), "batches": [jnp.ones(3)]}
    loss = lambda w, x: x * jnp.sum(jnp.abs(w) ** 2)
    with pytest.raises(error, match=message):
        measure.hessian_eigenvalues(loss, **{**arguments, **change})
