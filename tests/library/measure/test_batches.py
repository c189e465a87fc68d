"""Means over batches, the last of which may be smaller."""

import functools

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookbehind_optax import measure
from lookbehind_optax.measure import _batches
from tests.library.measure.networks import batched


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(1, 9))
def test_mean_is_that_of_all_examples_however_they_are_batched(sizes, scale):
    if not sum(sizes):
        sizes[0] = 1
    x = np.random.default_rng(0).normal(size=(sum(sizes), 2)).astype(np.float32)
    batches = np.split(x, np.cumsum(sizes)[:-1])
    found = measure.mean(
        lambda p, x: {"a": p * x[:, 0], "b": x[:, 1] > 0}, 2.0, batches
    )
    np.testing.assert_allclose(found["a"], 2 * x[:, 0].mean(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["b"], (x[:, 1] > 0).mean(), rtol=1e-6)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(1, 9))
def test_cut_keeps_every_example_in_order(sizes, size):
    x = np.arange(sum(sizes))
    batches = np.split(x, np.cumsum(sizes)[:-1])
    pieces = [piece for (piece,) in _batches.cut(batches, size)]
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(0 < len(piece) <= size for piece in pieces)
    np.testing.assert_array_equal(np.concatenate([*pieces, np.empty(0, int)]), x)


def test_a_loss_that_is_infinite_at_zero_does_not_see_zeros():
    x = jnp.array([1.0, 2.0, 3.0])
    loss = lambda p, x: jnp.log(x * p)
    found = measure.mean(loss, 1.0, [x, x[:1]])
    np.testing.assert_allclose(found, (np.log([1, 2, 3, 1])).mean(), rtol=1e-6)


def test_it_compiles_once_for_a_smaller_last_batch():
    traced = []

    @measure.compiled
    def loss(p, x):
        traced.append(x.shape)
        return p * x

    measure.mean(loss, 1.0, batched((np.ones(10, np.float32),), 4))
    measure.mean(loss, 3.0, batched((np.ones(11, np.float32),), 4))
    assert traced == [(4,)]


def test_progress_iterates_over_the_batches():
    seen = []

    def progress(items, desc):
        for item in items:
            seen.append(desc)
            yield item

    measure.mean(lambda p, x: x, None, [jnp.ones(2)] * 3, progress=progress)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "batches must hold at least one example"),
        ([jnp.ones(0)], ValueError, "batches must hold at least one example"),
        (jnp.ones((2, 3)), TypeError, "Put a single batch into a list"),
        (iter([jnp.ones(2)]), TypeError, "iterated over again; got list_iterator"),
        (7, TypeError, "batches must be a list of batches"),
        ([(jnp.ones(2), jnp.ones(3))], ValueError, "the same number of examples"),
        ([(jnp.ones(2), 1.0)], ValueError, "the same number of examples"),
    ],
)
def test_bad_batches(batches, error, message):
    with pytest.raises(error, match=message):
        measure.mean(lambda p, x, *_: x, None, batches)


def needs_both(p, x, y):
    return x[:, 0] * y.reshape(len(y), -1)[:, 0]


def takes_any(p, *batch):
    return jnp.ones(len(jax.tree.leaves(batch)[0]))


X = jnp.ones((6, 3))
ONE_BATCH = {
    "of different dtypes": (jnp.ones(6), jnp.ones(6, int)),
    "of different ranks": (X, jnp.ones(6)),
    "of a tree and an array": ({"image": X}, jnp.ones(6, int)),
    "as a list": [X, jnp.ones(6)],
    "of NumPy's arrays": (np.ones((6, 3)), np.arange(6)),
}


@pytest.mark.parametrize("fn", [needs_both, takes_any])
@pytest.mark.parametrize("batch", ONE_BATCH.values(), ids=ONE_BATCH)
def test_one_batch_in_place_of_a_list(fn, batch):
    with pytest.raises(TypeError, match=r"got the .* of one batch.*into a list"):
        measure.mean(fn, 1.0, batch)


def test_one_batch_of_arrays_that_are_alike():
    """Only the function knows that it isn't two batches."""
    with pytest.raises(
        TypeError,
        match=r"^batches must be a list of batches, .* got the tuple of one batch, of "
        r"shapes \(\(6, 3\), \(6, 2\)\)\. Put a single batch into a list\.$",
    ):
        measure.mean(needs_both, 1.0, (X, X[:, :2]))
    found = measure.mean(takes_any, 1.0, (X, X[:, :2]))
    np.testing.assert_array_equal(found, 1.0)


def test_a_dictionary_is_one_batch():
    with pytest.raises(TypeError, match=r"got dict\. Put a single batch into a list"):
        measure.mean(lambda p, batch: batch["x"], 1.0, {"x": jnp.ones(6)})


W = jnp.ones(())
REFUSING = {
    "sharpness": lambda f: measure.sharpness(f, W, (X, X), 0.1),
    "hessian_vector_product": lambda f: measure.hessian_vector_product(f, W, W, (X, X)),
    "hessian_trace": lambda f: measure.hessian_trace(f, W, (X, X)),
    "line": lambda f: measure.line(f, W, W, jnp.ones(1), (X, X)),
    "weight_noise": lambda f: measure.weight_noise(f, W, (X, X), 0.1),
}


@pytest.mark.parametrize("name", REFUSING)
def test_other_measures_refuse_one_batch(name):
    with pytest.raises(TypeError, match=r"^batches must be a list of batches"):
        REFUSING[name](needs_both)


@pytest.mark.parametrize("name", ["batches", "training_batches"])
def test_so_do_those_with_statistics(name):
    batches = {"batches": [(X, X)], "training_batches": [(X, X)], name: (X, X)}
    with pytest.raises(TypeError, match=rf"^{name} must be a list of batches"):
        measure.weight_noise(
            lambda w, statistics, x, y: w * statistics * x[:, 0],
            W,
            sigma=0.1,
            statistics=W,
            reestimate=lambda w, statistics, x, y: statistics,
            **batches,
        )


@pytest.mark.parametrize(
    "batches",
    [
        [X],
        (X,),
        [X, X[:2]],
        (X, X[:2]),
        [X, np.ones((2, 3))],  # float64, which JAX takes for float32
        [X, jnp.ones((6, 5))],  # of another length, as sentences are
        [{"x": X}, {"x": X, "mask": jnp.ones(6)}],
        [(X,), (X, jnp.ones(6))],
        [X, (X,)],
        ((X, X), (X, X)),
        [[X, X]],
    ],
)
def test_lists_and_tuples_of_batches(batches):
    np.testing.assert_array_equal(measure.mean(takes_any, 1.0, batches), 1.0)
    # A decorator passes it something of its own.
    given = functools.wraps(needs_both)(takes_any)
    np.testing.assert_array_equal(measure.mean(given, 1.0, batches), 1.0)


def test_a_mean_is_no_value_for_each_example():
    with pytest.raises(ValueError, match=r"of shape \(4,\); got \(\)"):
        measure.mean(lambda p, x: jnp.mean(x), None, [jnp.ones(4)])


def test_under_jit():
    batches = [(jnp.arange(4.0),), (jnp.arange(2.0),)]
    found = jax.jit(lambda p, b: measure.mean(lambda p, x: p * x, p, b))(3.0, batches)
    np.testing.assert_allclose(found, 3 * 7 / 6, rtol=1e-6)
