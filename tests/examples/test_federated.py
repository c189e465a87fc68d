"""The split, the clients and the server of `examples.federated`."""

from dataclasses import replace
import re
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples.federated import __main__ as federated
from examples.federated import config
from examples.federated import training
from examples.federated.averaging import make_round
from examples.federated.clients import local_batches
from examples.federated.clients import split
from examples.federated.config import Config
from examples.federated.config import METHODS
from examples.images import data
import lookbehind_optax as lb

LABELS = np.arange(1000) % 10


@pytest.fixture
def standard_promotion():
    """Flax's layers aren't written for strictness."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


# The split.


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


# A round.


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["kernel"])
    return jnp.mean((hidden @ params["out"] - y) ** 2)


def make_problem(clients, steps):
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "kernel": jax.random.normal(keys[0], (3, 5)),
        "out": jax.random.normal(keys[1], (5,)),
    }
    x = jax.random.normal(keys[2], (clients, steps, 4, 3))
    return params, (x, jax.random.normal(keys[3], (clients, steps, 4)))


def train_alone(optimizer, params, x, y):
    """The plain loop that anyone would write."""
    step = jax.jit(lb.make_step(loss, optimizer))
    state = optimizer.init(params)
    for batch in zip(x, y, strict=True):
        params, state, _ = step(params, state, *batch)
    return params


def test_one_client_with_all_examples_is_plain_training():
    optimizer = METHODS["ASAM"].optimizer()
    params, (x, y) = make_problem(clients=1, steps=4)
    federated_round = make_round(loss, optimizer)
    trained = federated_round(params, jnp.array([7.0]), (x, y))
    expected = train_alone(optimizer, params, x[0], y[0])
    jax.tree.map(np.testing.assert_array_equal, trained, expected)


def test_clients_train_as_each_would_alone():
    optimizer = METHODS["Lookbehind-SAM"].optimizer()
    params, (x, y) = make_problem(clients=3, steps=4)
    sizes = np.array([1.0, 2.0, 5.0], np.float32)
    server = make_round(loss, optimizer)(params, sizes, (x, y))
    alone = [
        train_alone(optimizer, params, *client) for client in zip(x, y, strict=True)
    ]
    for name, leaf in server.items():
        a, b, c = (np.asarray(client[name], float) for client in alone)
        mean = (1 * a + 2 * b + 5 * c) / 8
        np.testing.assert_allclose(leaf, mean, rtol=1e-5, atol=1e-6)


# A run.


@pytest.fixture(scope="module")
def problem():
    return training.Problem(data.load("digits"))


SMALL = Config(clients=4, sampled=2, concentration=1.0, rounds=8, gradients=6)


def test_the_average_is_the_mean_of_the_last_quarter(problem, standard_promotion):
    clients = split(problem.train[1], 4, 1.0, smallest=10, seed=0)
    federated_round = make_round(problem.loss, optax.sgd(0.03))
    run = training.train(SMALL, problem, federated_round, 6, clients, seed=0)
    models, averages = zip(*run, strict=True)
    for model, average in zip(models[:6], averages[:6], strict=True):
        jax.tree.map(np.testing.assert_array_equal, model, average)
    jax.tree.map(
        lambda a, b, mean: np.testing.assert_allclose(mean, (a + b) / 2, atol=1e-6),
        *models[6:],
        averages[-1],
    )


def test_methods_of_a_seed_have_the_same_clients(problem, monkeypatch):
    monkeypatch.setattr(problem, "init", lambda seed: jnp.zeros(1))
    clients = split(problem.train[1], 4, 1.0, smallest=10, seed=0)

    def sizes_seen(steps):
        seen = []

        def federated_round(params, sizes, batches):
            assert batches[1].shape == (2, steps, 10)
            seen.append(sizes)
            return params

        list(training.train(SMALL, problem, federated_round, steps, clients, seed=0))
        return seen

    few, many = sizes_seen(2), sizes_seen(6)
    assert len(few) == 8
    np.testing.assert_array_equal(few, many)
    assert len(np.unique(few)) > 2  # other clients in other rounds


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampled": 5}, r"^--sampled must be from 1 to the 4 clients .* got 5"),
        ({"sampled": 0}, r"^--sampled must be from 1 to the 4 clients .* got 0"),
        ({"rounds": 3}, r"^--rounds must be at least 4.* got 3"),
        ({"gradients": 8}, r"^--gradients must be a positive multiple of 6.* got 8"),
        ({"batch_size": 0}, r"^--batch-size must be at least 1; got 0"),
        ({"seeds": 1}, r"^--seeds must be at least 2.* got 1"),
    ],
)
def test_what_it_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        config.check(replace(SMALL, **values))


def test_one_command_prints_the_table_and_draws_the_curves(tmp_path):
    picture = tmp_path / "federated.png"
    command = [sys.executable, "-m", "examples.federated", "--rounds", "16"]
    command += ["--seeds", "2", "--output", str(picture)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for method in METHODS:
        (row,) = re.findall(rf"^{method} .*", done.stdout, re.MULTILINE)
        server, _, average = map(float, re.findall(r"\d+\.\d+", row)[:3])
        assert 60 < server < 100
        assert 60 < average < 100
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--output", "curves.jpg", "^Error: --output must be .* got curves.jpg"),
        ("--concentration", "0", "^Error: concentration must be positive .* got 0"),
        ("--batch-size", "66", "^Error: each of 20 clients must have a batch of 66"),
    ],
)
def test_the_command_says_what_is_wrong(flag, value, message):
    with pytest.raises(SystemExit, match=message):
        federated.main([flag, value])
