"""The aux that a loss function returns, and which of its values can be averaged."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lookbehind_optax import _axis
from lookbehind_optax import _numbers
from lookbehind_optax import _precision


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelState:
    """The model state that a forward pass updates, wrapped for the aux of a loss.

    If the batch is split, by `micro_batches`, `m` or an axis, the aux is averaged over
    the parts, so it must hold floating-point means. A `ModelState` may also hold other
    values, such as the counter of Haiku's moving averages or the position of a random
    stream; these are taken from the first part.

    Attributes:
      value: a tree of arrays.

    Example:
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> def loss_fn(params, x, *, count):
      ...     return jnp.mean((x - params) ** 2), lb.ModelState({"count": count + 1})
      >>> sgd, params = optax.sgd(0.1), jnp.zeros(())
      >>> step = lb.make_step(loss_fn, sgd, has_aux=True, micro_batches=2)
      >>> count = jnp.int32(0)
      >>> _, _, out = step(params, sgd.init(params), jnp.arange(4.0), count=count)
      >>> print(out.aux.value["count"])
      1
    """

    value: Any


def pair(result: Any, has_aux: bool) -> tuple[Any, Any]:
    """The loss and the aux from what a loss function returned."""
    if has_aux and not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            "with has_aux=True, loss_fn must return a pair (loss, aux); "
            f"got {_summary(result)}."
        )
    loss: Any = result[0] if has_aux else result
    aux = result[1] if has_aux else None
    is_real = _precision.is_float(loss) and not jnp.iscomplexobj(loss)
    if not is_real or jnp.shape(loss) != ():
        advice = " If it holds a loss for each example, return their mean."
        if isinstance(loss, (tuple, list)):
            advice = " If it is a pair of a loss and an aux, pass has_aux=True."
        raise TypeError(
            f"loss_fn must return a real scalar; got {_summary(loss)}.{advice}"
        )
    return loss, aux


def mean(axis_name, aux):
    """The aux averaged over the axis; integers come from its first member."""

    def merge(x):
        over = _axis.mean if _precision.is_float(x) else _axis.first
        return over(axis_name, x)

    return aux if axis_name is None else jax.tree.map(merge, aux)


def check_means(aux, of_twice) -> None:
    """Checks that an aux to be averaged over parts of the batch can hold means.

    An array whose shape changes when each example appears twice, as in `of_twice()`,
    holds an entry for each example.
    """

    def is_state(node):
        return isinstance(node, ModelState)

    own = jax.tree.map(lambda x: None if is_state(x) else x, aux, is_leaf=is_state)
    for path, x in jax.tree_util.tree_leaves_with_path(own):
        if not _precision.is_float(x):
            raise TypeError(
                "aux must hold floating-point means where it is averaged over "
                f"micro-batches or groups; aux{jax.tree_util.keystr(path)} is "
                f"{_summary(x)}."
            )
    means = _precision.floats(aux)
    if all(jnp.shape(x) == () for x in jax.tree.leaves(means)):
        return
    twice = jax.tree.leaves(jax.eval_shape(lambda: _precision.floats(of_twice())))
    leaves = jax.tree_util.tree_leaves_with_path(means)
    for (path, x), other in zip(leaves, twice, strict=True):
        if jnp.shape(x) != other.shape:
            raise TypeError(
                "aux must hold means over examples where it is averaged over "
                "micro-batches or groups; the shape of "
                f"aux{jax.tree_util.keystr(path)}, {_summary(x)}, depends on the "
                "number of examples."
            )


def _summary(tree):
    """Types and shapes instead of values, which a trace doesn't have."""

    def summary(x):
        dtype = getattr(x, "dtype", None)
        return _numbers.describe(x) if dtype is None else f"{dtype}{list(jnp.shape(x))}"

    leaves = jax.tree.leaves(tree, is_leaf=lambda x: x is None)
    if len(leaves) == 1 and leaves[0] is tree:
        return summary(tree)
    return f"{type(tree).__name__} of " + (", ".join(map(summary, leaves)) or "nothing")
