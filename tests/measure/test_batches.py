"""Means over batches, the last of which may be smaller."""

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookbehind_optax import measure
from lookbehind_optax.measure import _batches
from tests.measure.networks import batched


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

    def loss(p, x):
        traced.append(x.shape)
        return p * x

    measure.mean(loss, 1.0, batched((np.ones(10, np.float32),), 4))
    measure.mean(loss, 3.0, batched((np.ones(11, np.float32),), 4))
    assert traced == [(4,)]


def test_progress_goes_through_the_batches():
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
        (iter([jnp.ones(2)]), TypeError, "gone through again; got list_iterator"),
        (7, TypeError, "batches must be a list of batches"),
        ([(jnp.ones(2), jnp.ones(3))], ValueError, "as many examples each"),
        ([(jnp.ones(2), 1.0)], ValueError, "as many examples each"),
    ],
)
def test_bad_batches(batches, error, message):
    with pytest.raises(error, match=message):
        measure.mean(lambda p, x, *_: x, None, batches)


def test_a_mean_is_no_value_for_each_example():
    with pytest.raises(ValueError, match=r"of shape \(4,\); got \(\)"):
        measure.mean(lambda p, x: jnp.mean(x), None, [jnp.ones(4)])


def test_under_jit():
    batches = [(jnp.arange(4.0),), (jnp.arange(2.0),)]
    found = jax.jit(lambda p, b: measure.mean(lambda p, x: p * x, p, b))(3.0, batches)
    np.testing.assert_allclose(found, 3 * 7 / 6, rtol=1e-6)
