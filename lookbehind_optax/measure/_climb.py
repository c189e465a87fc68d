"""Losses and gradients along the ascent of one step."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _numbers
from lookbehind_optax import _params
from lookbehind_optax import _precision
from lookbehind_optax.measure import _ascent
from lookbehind_optax.measure import _batches
from lookbehind_optax.measure import _positive
from lookbehind_optax.measure import _programs


class Climb(NamedTuple):
    """An ascent of k steps from a point.

    Attributes:
      losses: at the point and after each step, of shape (k + 1,).
      cosines: of the angles between each gradient and the first, of shape (k + 1,).
    """

    losses: jax.Array
    cosines: jax.Array


def climb(
    losses_fn: Callable[..., jax.Array],
    params: Any,
    batch: Any,
    rho: float,
    k: int,
    *,
    direction: optax.GradientTransformation | None = None,
) -> Climb:
    """The losses along an ascent, and the alignment of the gradients there.

    This is the ascent of Multistep-SAM and Lookbehind-SAM on one minibatch: k steps of
    length ρ, each along the gradient at its starting point.

    Args:
      losses_fn: `losses_fn(params, *batch)` returns the losses of the examples of a
        batch, of shape (examples,).
      params: the starting point, a tree of floating-point arrays; computed in float32
        or wider.
      batch: a tuple of trees of arrays.
      rho: ρ > 0, the radius of a step.
      k: number of steps.
      direction: the direction of ascent; `sam_direction()` by default.

    Returns:
      Losses and cosines, k + 1 of each.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if ρ isn't positive, k is less than 1, or there isn't one loss for
        each example.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     return x * jnp.sum(w**2)
      >>> w = jnp.array([3.0, 4.0])
      >>> found = measure.climb(losses, w, jnp.ones(8), rho=1.0, k=2)
      >>> print(found.losses.round(2), found.cosines.round(4))
      [25. 36. 49.] [1. 1. 1.]

    References:
      Mordido et al., `Lookbehind-SAM <https://arxiv.org/abs/2307.16704>`_, 2024,
      Section 5
    """
    losses_fn = _programs.compiled(losses_fn)
    direction = _ascent.along(direction)
    _params.check_params(params)
    params = _precision.widen(params)
    _numbers.check_count("k", k, minimum=1)
    (radius,) = _positive.positive("rho", rho)
    ((batch, mask),) = _batches.padded([batch])
    gradient = losses_fn.program(_ascent.gradient)
    step = _programs.compiled(direction.update).program(_ascent.step)

    first, losses, cosines = None, [], []
    state = direction.init(params)
    for i in range(k + 1):
        loss, grads = gradient(params, batch, mask)
        first = grads if first is None else first
        losses.append(loss / len(mask))
        cosines.append(_precision.cosine(first, grads))
        if i < k:
            params, state = step(state, params, grads, radius)
    return Climb(jnp.stack(losses), jnp.stack(cosines))
