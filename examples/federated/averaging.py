"""A round of federated averaging, the part to copy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

import lookbehind_optax as lb

Optimizer = optax.GradientTransformationExtraArgs


def make_round(loss: Callable, optimizer: Optimizer) -> Callable:
    r"""Makes a jitted round of federated averaging.

    .. math::
        w \leftarrow \sum_i \frac{n_i}{\sum_j n_j} w_i

    with :math:`w_i` the parameters of client i after its steps from w, and
    :math:`n_i` the number of its examples.

    Args:
      loss: from `(params, *batch)` to a scalar.
      optimizer: of the clients, any Optax optimizer.

    Returns:
      `federated_round(params, sizes, batches)`, which returns the server's new
      parameters, from the sizes (clients,) and a tuple of arrays (clients, steps, ...).

    References:
      McMahan et al., `Communication-Efficient Learning of Deep Networks from
      Decentralized Data <https://arxiv.org/abs/1602.05629>`_, 2017, Algorithm 1
    """
    step = lb.make_step(loss, optimizer)

    def train_client(params, batches):
        def local_step(carry, batch):
            params, state, _ = step(*carry, *batch)
            return (params, state), None

        # The state lives for one round of the client: the server never sees it.
        start = params, optimizer.init(params)
        (params, _), _ = jax.lax.scan(local_step, start, batches)
        return params

    @jax.jit
    def federated_round(params, sizes, batches):
        # From here on, every client has its own parameters and state.
        clients = jax.vmap(train_client, in_axes=(None, 0))(params, batches)
        weights = sizes / sizes.sum()
        return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), clients)

    return federated_round
