"""Steps uphill: the gradient of the losses, and the step along a direction."""

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _directions
from lookbehind_optax import _transformations
from lookbehind_optax.measure import _batches
from lookbehind_optax.measure import _programs

_sam = _directions.sam_direction()
# It reads nothing that changes, so its programs can be kept.
_STEEPEST = _sam._replace(update=_programs.compiled(_sam.update))


def along(direction):
    """The direction of an ascent: that of an argument, by default the steepest."""
    if direction is None:
        return _STEEPEST
    _transformations.accept("direction", direction, "sam_direction()")
    return direction


def gradient(losses_fn, params, batch, mask):
    """The sum of the losses of the examples that count, and its gradient."""

    def total(params):
        return _batches.sums(losses_fn, params, batch, mask)

    value, grads = jax.value_and_grad(total)(params)
    return value, optax.tree.conj(grads)


def step(update, state, params, grads, radius):
    """One step of length `radius`: its end point, and the direction's next state."""
    uphill, state = update(grads, state, params)
    ahead = jax.tree.map(
        lambda p, d: p + jnp.asarray(radius, d.dtype) * d, params, uphill
    )
    return ahead, state
