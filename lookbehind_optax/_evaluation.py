"""One evaluation of a loss and its gradient, whatever the batch must go through."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _checks
from lookbehind_optax import _keys
from lookbehind_optax import _loop
from lookbehind_optax import _precision


class Evaluation(NamedTuple):
    """What one pass over the batch gives.

    Attributes:
      loss: the mean over the micro-batches; float32 or wider.
      grads: its gradient, conjugated for complex parameters, as Optax wants it; all
        NaN where the loss scale made a part of it overflow. None if not asked for.
      aux: what the loss function returns beside the loss, averaged likewise.
      carried: as aux, but what isn't floating-point comes from the first micro-batch.
    """

    loss: jax.Array
    grads: Any
    aux: Any
    carried: Any


def evaluate(
    loss_fn,
    params,
    batch,
    context,
    *,
    micro_batches=1,
    dynamic_scale=None,
    differentiate=True,
):
    """Evaluates `loss_fn(params, *batch, **context) -> (loss, aux, carried)`.

    Of n micro-batches, number j takes the examples j, j + n, j + 2n, ...: whatever
    the batch is sharded over, so is each of them.
    """

    def evaluate_one(params, batch, context):
        scale = None if dynamic_scale is None else dynamic_scale.scale

        def scaled_loss(params):
            loss, aux, carried = loss_fn(params, *batch, **context)
            _checks.check_loss(loss)
            loss = _precision.widen(loss)
            scaled = loss if scale is None else loss * jnp.asarray(scale, loss.dtype)
            return scaled, (loss, aux, carried)

        if not differentiate:
            _, (loss, aux, carried) = scaled_loss(params)
            return Evaluation(loss, None, aux, carried)
        value_and_grad = jax.value_and_grad(scaled_loss, has_aux=True)
        (_, (loss, aux, carried)), grads = value_and_grad(params)
        grads = optax.tree.conj(grads)
        if scale is not None:
            grads = _unscale(grads, scale)
        return Evaluation(loss, grads, aux, carried)

    if micro_batches == 1:
        return evaluate_one(params, batch, context)

    parts = jax.tree.map(
        lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch
    )

    def evaluate_part(j, params):
        part = jax.tree.map(lambda x: x[j], parts)
        evaluation = evaluate_one(params, part, _keys.fold(context, j))
        return jax.tree.map(jnp.asarray, evaluation)

    def accumulate(j, carry):
        params, total = carry
        total = jax.tree.map(
            lambda t, x: (
                t + x.astype(t.dtype) if _precision.is_float(x) else jnp.where(j, t, x)
            ),
            total,
            evaluate_part(j, params),
        )
        # The next part waits for this total: that is what saves the memory.
        return _loop.now((params, total))

    like = jax.eval_shape(evaluate_part, jnp.int32(0), params)
    zeros = jax.tree.map(lambda x: _to_sum(jnp.zeros_like(x)), like)
    _, total = _loop.repeat(accumulate, (params, zeros), 0, micro_batches)
    return jax.tree.map(
        lambda t, x: (
            (t / micro_batches).astype(x.dtype) if _precision.is_float(x) else t
        ),
        total,
        like,
    )


def _unscale(grads, scale):
    """The gradients without the loss scale, or NaNs if any part has overflowed.

    Clipping would make a harmless number of an infinite gradient, and an unperturbed
    leaf would hide one from the climb; NaNs everywhere stay.
    """
    wide = jax.tree.map(
        lambda g: g / jnp.asarray(scale, g.dtype), _precision.widen(grads)
    )
    finite = is_finite(wide)
    return _precision.cast_like(
        jax.tree.map(lambda g: jnp.where(finite, g, jnp.nan), wide), grads
    )


def is_finite(tree):
    """Whether every number in the tree is finite."""
    flags = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(flags)) if flags else jnp.array(True)


def _to_sum(x):
    return _precision.widen(x) if _precision.is_float(x) else x
