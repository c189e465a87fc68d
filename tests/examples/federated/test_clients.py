"""The split of examples over clients, and what a client takes of its own."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from examples.federated.clients import local_batches
from examples.federated.clients import split

LABELS = np.arange(1000) % 10


@given(
    clients=st.integers(1, 8), concentration=st.floats(0.2, 1e6), seed=st.integers(0, 9)
)
def test_every_example_has_one_client(clients, concentration, seed):
    parts = split(LABELS, clients, concentration, smallest=5, seed=seed)
    assert len(parts) == clients
    assert min(map(len, parts)) >= 5
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    again = split(LABELS, clients, concentration, smallest=5, seed=seed)
    for part, same in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part, same)


def test_another_seed_splits_otherwise():
    assert len(split(LABELS, 2, 1.0, 1, 0)[0]) != len(split(LABELS, 2, 1.0, 1, 1)[0])


@given(seed=st.integers(0, 1000))
def test_a_large_concentration_makes_clients_alike(seed):
    for part in split(LABELS, 5, 1e7, smallest=1, seed=seed):
        counts = np.bincount(LABELS[part], minlength=10)
        np.testing.assert_allclose(counts, np.full(10, 20), atol=1)


@given(seed=st.integers(0, 1000))
def test_a_small_concentration_leaves_a_client_few_classes(seed):
    parts = split(LABELS, 5, 1e-3, smallest=1, seed=seed)
    # Nearly all of a class goes to one client.
    assert sum(len(np.unique(LABELS[part])) for part in parts) <= 12


def test_shares_are_those_of_the_dirichlet_distribution():
    shares = [
        len(split(np.zeros(100, int), 4, 0.5, smallest=0, seed=seed)[0]) / 100
        for seed in range(2000)
    ]
    assert np.mean(shares) == pytest.approx(1 / 4, abs=0.02)
    # (1/n)(1 - 1/n) / (nβ + 1), for n = 4 and β = 1/2
    assert np.var(shares) == pytest.approx(1 / 16, abs=0.005)


@pytest.mark.parametrize("concentration", [0.0, -1.0, np.inf, np.nan])
def test_a_concentration_must_be_positive(concentration):
    with pytest.raises(ValueError, match=r"^concentration must be positive .* got"):
        split(LABELS, 5, concentration, smallest=1, seed=0)


def test_a_batch_larger_than_the_smallest_client_is_refused():
    with pytest.raises(
        ValueError, match=r"^each of 5 clients must have a batch of 201"
    ):
        split(LABELS, 5, 1e7, smallest=201, seed=0)


def test_a_client_takes_its_own_examples_an_epoch_at_a_time():
    client = np.arange(100, 112)
    batches = local_batches(np.random.default_rng(0), client, steps=6, batch_size=4)
    assert batches.shape == (6, 4)
    for epoch in np.split(batches, 2):
        np.testing.assert_array_equal(np.sort(epoch, axis=None), client)
    assert (batches[:3] != batches[3:]).any()
