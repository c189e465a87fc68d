"""One evaluation of a loss and its gradient, over all parts of a batch."""

from collections.abc import Callable
import dataclasses
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _keys
from lookbehind_optax import _loop
from lookbehind_optax import _precision


class Evaluation(NamedTuple):
    """The result of one pass over the batch.

    Attributes:
      loss: the mean over the micro-batches; float32 or wider. NaN at a perturbed point
        where the loss scale made the gradient overflow.
      grads: its gradient, conjugated for complex parameters, as Optax expects; all NaN
        if the loss scale made any part of it overflow. None if not requested.
      aux: what the loss function returns besides the loss, averaged like it; values
        that aren't floating-point come from the first micro-batch.
    """

    loss: jax.Array
    grads: Any
    aux: Any


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """The loss function of a step, and how each evaluation prepares the batch.

    Attributes:
      loss_fn: `loss_fn(params, *batch, **context)` returns the loss and the aux.
      switch_minibatches: whether inner step i takes minibatch i of the batch.
      micro_batches: the number of parts into which the batch is split.
      fresh_keys: whether evaluation n folds n into keys.
      dynamic_scale: the loss scale, or None.
    """

    loss_fn: Callable[..., tuple[Any, Any]]
    switch_minibatches: bool
    micro_batches: int
    fresh_keys: bool
    dynamic_scale: Any

    def with_gradient(self, params, i, n, batch, context):
        """Evaluation number n of a step, for inner step i (None for the clean pass)."""
        if self.switch_minibatches:
            batch = jax.tree.map(lambda x: x[0 if i is None else i], batch)
        if self.fresh_keys and i is not None:
            batch, context = _keys.fold((batch, context), n)
        found = self._mean(self._gradient, params, batch, context)
        if i is None or self.dynamic_scale is None:
            return found
        # A base may hide the NaNs of an overflow; the loss reports them to the step.
        loss = jnp.where(is_finite(found.grads), found.loss, jnp.nan)
        return found._replace(loss=loss)

    def forward(self, params, batch, context):
        """The clean pass without a gradient."""
        if self.switch_minibatches:
            batch = jax.tree.map(lambda x: x[0], batch)
        return self._mean(self._loss, params, batch, context)

    def _loss(self, params, batch, context):
        loss, aux = self.loss_fn(params, *batch, **context)
        return Evaluation(_precision.widen(loss), None, aux)

    def _gradient(self, params, batch, context):
        scale = None if self.dynamic_scale is None else self.dynamic_scale.scale

        def scaled(params):
            found = self._loss(params, batch, context)
            if scale is None:
                return found.loss, found
            return found.loss * jnp.asarray(scale, found.loss.dtype), found

        grads, found = jax.grad(scaled, has_aux=True)(params)
        grads = optax.tree.conj(grads)
        grads = grads if scale is None else _unscale(grads, scale)
        return found._replace(grads=grads)

    def _mean(self, evaluate, params, batch, context):
        """The mean over n micro-batches; number j has examples j, j + n, j + 2n, ...

        Each micro-batch is therefore sharded like the batch.
        """
        count = self.micro_batches
        if count == 1:
            return evaluate(params, batch, context)
        parts = jax.tree.map(
            lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def evaluate_part(j, params):
            part = jax.tree.map(lambda x: x[j], parts)
            found = evaluate(params, part, _keys.fold(context, j))
            return jax.tree.map(jnp.asarray, found)

        return _mean_over_parts(evaluate_part, params, count)


def _mean_over_parts(evaluate_part, params, count):
    """The mean of floating-point values; other values come from the first part."""

    def accumulate(j, carry):
        def add(t, x):
            is_float = _precision.is_float(x)
            return t + x.astype(t.dtype) if is_float else jnp.where(j, t, x)

        params, total = carry
        total = jax.tree.map(add, total, evaluate_part(j, params))
        # The next part waits for this total, which saves memory.
        return _loop.now((params, total))

    like = jax.eval_shape(evaluate_part, jnp.int32(0), params)
    zeros = jax.tree.map(_zero, like)
    _, total = _loop.repeat(accumulate, (params, zeros), 0, count)

    def divide(t, x):
        return (t / count).astype(x.dtype) if _precision.is_float(x) else t

    return jax.tree.map(divide, total, like)


def _unscale(grads, scale):
    """The gradients without the loss scale, or NaNs if any part has overflowed.

    Clipping would turn an infinite gradient into a harmless number, and an unperturbed
    leaf would hide it from the climb. NaNs in all leaves survive both.
    """
    wide = _precision.widen(grads)
    wide = jax.tree.map(lambda g: g / jnp.asarray(scale, g.dtype), wide)
    finite = is_finite(wide)
    wide = jax.tree.map(lambda g: jnp.where(finite, g, jnp.nan), wide)
    return _precision.cast_like(wide, grads)


def is_finite(tree):
    """Whether every number in the tree is finite."""
    flags = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(flags)) if flags else jnp.array(True)


def _zero(x):
    zero = jnp.zeros_like(x)
    return _precision.widen(zero) if _precision.is_float(x) else zero
