"""A run of the server over all rounds, and the program."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples.federated import training
from examples.federated.averaging import make_round
from examples.federated.clients import split
from examples.federated.config import Config
from examples.federated.config import METHODS
from examples.images import data
from tests.processes import run


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


@pytest.mark.slow
def test_one_command_prints_the_table_and_draws_the_curves(tmp_path):
    picture = tmp_path / "federated.png"
    options = ["--rounds", 16, "--seeds", 2, "--output", picture]
    done = run("examples.federated", *options)
    assert done.returncode == 0, done.stderr
    for method in METHODS:
        (row,) = re.findall(rf"^{method} .*", done.stdout, re.MULTILINE)
        server, _, average = map(float, re.findall(r"\d+\.\d+", row)[:3])
        assert 60 < server < 100
        assert 60 < average < 100
    assert picture.read_bytes().startswith(b"\x89PNG")
