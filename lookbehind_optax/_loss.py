"""The loss that a climb ascends: a gradient function with optional information."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _axis
from lookbehind_optax import _params

# Marks a loss that hasn't been computed: finite, so that it passes JAX's checks for
# NaNs and infinities, but too low to be mistaken for a real loss.
UNKNOWN = float(jnp.finfo(jnp.float32).min)


@dataclasses.dataclass(frozen=True, eq=False)
class Loss:
    """A loss as a step sees it. Called as `loss(params, i)`, it is a `grad_fn`.

    Attributes:
      evaluate: `evaluate(params, i, n)` returns the loss and its gradient (conjugated
        for complex parameters), for inner step i, as evaluation number n of the step.
      value: the loss at the parameters before the step; None if unknown.
      grads: its gradient there.
      incoming: that gradient as the optimizer gets it, averaged over the axis; None if
        the caller is free to pass another one.
      minibatches: how many minibatches the index i selects from; None if it doesn't
        select any.
      axis_name: the axis to whose members `evaluate`, `value` and `grads` are local.
      m: the size of m-SAM's groups, if they are the members of the axis.
    """

    evaluate: Callable[[Any, Any, Any], tuple[jax.Array | None, Any]]
    grads: Any
    value: jax.Array | None = None
    incoming: Any = None
    minibatches: int | None = None
    axis_name: Any = None
    m: int | None = None

    def __call__(self, params, i):
        """The gradient for inner step i, averaged over the axis."""
        return self.everywhere(params, i, i + 1)[1]

    def value_at_start(self, g):
        """The loss before the climb, which varies along axes as the gradient does."""
        if self.value is not None:
            return self.value.astype(jnp.float32)
        leaf = jax.tree.leaves([g, jnp.zeros([])])[0]
        return jax.lax.full_like(leaf, UNKNOWN, jnp.float32, shape=())

    def everywhere(self, params, i, n):
        """`evaluate`, averaged over the axis."""
        local = _axis.local(self.axis_name, params)
        return _axis.mean(self.axis_name, self.evaluate(local, i, n))


def of(grad_fn, value_fn, grads, params, k, axis_name) -> Loss:
    """The loss from the functions passed to `update`, for a climb of k steps.

    If the optimizer doesn't name the axis of a `Loss`, the loss is averaged over that
    axis: the gradients, and so the perturbations, are those of the whole batch.
    """
    if k > 0:
        _params.check_whole(params)
    if isinstance(grad_fn, Loss):
        loss = _checked(grad_fn, grads, k, axis_name)
        if loss.axis_name == axis_name:
            return loss
        value = _axis.mean(loss.axis_name, loss.value)
        return Loss(loss.everywhere, grads, value)
    if k > 0 and grad_fn is None and value_fn is None:
        raise ValueError(
            "update needs gradients at perturbed parameters: pass "
            "grad_fn=lambda params, i: ... or a loss as value_fn=lambda params: ..., "
            "or let make_step, linen_step or nnx_step call update. (optax.MultiSteps "
            "passes neither on: use their micro_batches instead.)"
        )
    _check_local(axis_name, grads)

    def evaluate(p, i, n):
        if grad_fn is not None:
            value, name, g = None, "grad_fn", grad_fn(p, i)
        else:  # for complex leaves, Optax wants the conjugate of what jax.grad gives
            name = "value_fn"
            value, g = jax.value_and_grad(value_fn)(p)
            g = optax.tree.conj(g)
        _params.check_like_params(f"what {name} returns", g, p)
        return value, g

    return Loss(evaluate, grads, axis_name=axis_name)


def _checked(loss, grads, k, axis_name):
    """The loss, after checking that its step fits the optimizer."""
    if loss.minibatches not in (None, max(k, 1)):
        wanted = f"k = {k} minibatches" if k > 0 else "one minibatch, since k = 0,"
        raise ValueError(
            f"the batch must carry {wanted} on its leading axis; "
            f"got {loss.minibatches}."
        )
    if loss.axis_name != axis_name and not (axis_name is None and loss.m is None):
        raise ValueError(
            "axis_name must be the same for the step and its optimizer; make_step got "
            f"{loss.axis_name!r} and the optimizer {axis_name!r}."
        )
    pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(loss.incoming), strict=True)
    if all(g is clean for g, clean in pairs):
        return loss
    if k > 0:
        raise ValueError(
            "a sharpness-aware optimizer must get the gradient unchanged, because it "
            "evaluates further gradients itself: a transformation before it in "
            "optax.chain, or around it, would act on the first ascent only. Move it "
            "into the base, as in "
            "lb.sam(optax.chain(optax.clip_by_global_norm(1.0), base)). (Instead of "
            "optax.MultiSteps, use micro_batches.)"
        )
    return dataclasses.replace(loss, grads=grads)


def _check_local(axis_name, grads):
    if axis_name is None:
        return
    leaves = jax.tree.leaves(grads)
    types = [
        [jax.typeof(x) for x in xs] for xs in (leaves, _axis.local(axis_name, leaves))
    ]
    if leaves and all(a != b for a, b in zip(*types, strict=True)):
        raise ValueError(
            f"grads must be local to the members of the axis {axis_name!r}, but they "
            "are the same on all of them, as if summed already: inside jax.shard_map "
            "take the gradient at jax.lax.pcast(params, axis_name, to='varying')."
        )
