"""Steps uphill, and what they are made of: the loss, its gradient, a direction."""

import functools

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _directions
from lookbehind_optax.measure import _batches

# One and the same, so that what is compiled for it serves every call.
STEEPEST = _directions.sam_direction()


@functools.partial(jax.jit, static_argnums=0)
def loss(losses_fn, params, batch, mask):
    """The sum over the examples that count."""
    return _batches.masked_sum(losses_fn(params, *batch), mask)


@functools.partial(jax.jit, static_argnums=0)
def gradient(losses_fn, params, batch, mask):
    """That sum and its gradient."""

    def total(params):
        return _batches.masked_sum(losses_fn(params, *batch), mask)

    value, grads = jax.value_and_grad(total)(params)
    return value, optax.tree.conj(grads)


@functools.partial(jax.jit, static_argnums=0)
def ascend(direction, params, grads, radius):
    """One step of length `radius`."""
    uphill, _ = direction.update(grads, direction.init(params), params)
    return jax.tree.map(
        lambda p, d: p + jnp.asarray(radius, d.dtype) * d, params, uphill
    )
