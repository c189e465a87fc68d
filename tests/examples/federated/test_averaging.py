"""A round of federated averaging is the mean of clients that train as if alone."""

import jax
import jax.numpy as jnp
import numpy as np

from examples.federated.averaging import make_round
from examples.federated.config import METHODS
import lookbehind_optax as lb


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
