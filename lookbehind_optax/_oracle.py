"""What the climb asks of the loss: its gradient, and its value where that is free."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import optax

from lookbehind_optax import _checks
from lookbehind_optax import _precision


class Oracle(NamedTuple):
    """The loss as `make_step` hands it to the climb, with what it knows of the step.

    Attributes:
      value_and_grad: from parameters and the index of the inner step to the loss there
        and its gradient, conjugated for complex parameters.
      minibatches: how many minibatches the index switches; None where it doesn't.
      axis_name: the axis over which `make_step` averages what it reports.
    """

    value_and_grad: Callable[[optax.Params, jax.Array], tuple[jax.Array, Any]]
    minibatches: int | None = None
    axis_name: Any = None


def check(oracle, k, axis_name):
    """The step was made for an optimizer like this one."""
    if oracle.minibatches not in (None, max(k, 1)):
        wanted = f"k = {k} minibatches" if k > 0 else "one minibatch, since k = 0,"
        raise ValueError(
            f"the batch must carry {wanted} on its leading axis; "
            f"got {oracle.minibatches}."
        )
    if oracle.axis_name != axis_name:
        raise ValueError(
            "axis_name must be the same for the step and its optimizer; make_step got "
            f"{oracle.axis_name!r} and the optimizer {axis_name!r}."
        )


def value_and_gradient(oracle, grad_fn, value_fn, grads):
    """Returns `f(p, i)`: the loss (None if unknown) and its gradient like `grads`."""

    def value_and_grad(p, i):
        value = None
        if oracle is not None:
            name = "loss_fn"
            value, g = oracle.value_and_grad(p, i)
        elif grad_fn is not None:
            name, g = "grad_fn", grad_fn(p, i)
        else:  # for complex leaves, Optax wants the conjugate of what jax.grad gives
            name = "value_fn"
            value, g = jax.value_and_grad(value_fn)(p)
            g = optax.tree.conj(g)
        _checks.check_like_params(f"what {name} returns", g, p)
        return value, _precision.cast_like(g, grads)

    return value_and_grad
