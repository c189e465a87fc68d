"""Momentum and moments, pulled back along with the weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from lookbehind_optax import _numbers
from lookbehind_optax import _precision
from lookbehind_optax import _trees


def check(pullback: str) -> None:
    """Checks that `pullback` is the name of a method."""
    _numbers.check_choice("pullback", pullback, ("none", "reset", "pullback"))


# The states of bases that keep positions of the weights, and step towards or from them.
_COPIES = (
    optax.contrib.ScheduleFreeState,
    optax.contrib.MadgradState,
    optax.contrib.COCOBState,
)

_OTHER = object()  # what isn't a moment

# The states of bases that estimate their learning rate from all steps so far.
_ESTIMATES = (
    optax.contrib.DAdaptAdamWState,
    optax.contrib.DoGState,
    optax.contrib.DoWGState,
    optax.contrib.MechanicState,
    optax.contrib.ProdigyState,
)


def check_base(pullback: str, base_state: Any, *others: type) -> None:
    """Refuses bases whose states can't be pulled back like this.

    Args:
      pullback: the name of a method.
      base_state: the base's state, which must not hold positions, since α wouldn't move
        them back, and with "reset" no estimate of the learning rate.
      *others: types of other states that hold positions.
    """
    if found := _trees.nodes(base_state, (*_COPIES, *others)):
        raise TypeError(
            "base must not keep a copy of the parameters, which α doesn't move back "
            f"with the weights; its state has a {type(found[0]).__name__}. "
            "Use another base; put lookahead outermost, and use it only once: "
            "lookahead(lookbehind_sam(...))."
        )
    estimates = _trees.nodes(base_state, _ESTIMATES) if pullback == "reset" else []
    if estimates:
        raise TypeError(
            'base must not estimate its learning rate if pullback is "reset", which '
            "would discard what the estimate is made from; its state has a "
            f'{type(estimates[0]).__name__}. Use "none" or "pullback".'
        )


def pull_back(pullback, base, params, start, end, alpha) -> Any:
    """The base optimizer's state after its weights moved back to a share α of the way.

    Args:
      pullback: "none" returns `end`, "reset" restores the moments' initial values, with
        the numbers beside them, such as the count that corrects their bias, "pullback"
        interpolates them by α from `start`. Moments are the leaves that correspond to
        parameters. Schedules are left alone.
      base: the base optimizer.
      params: the parameters to initialize it with.
      start: its state at the beginning of the way.
      end: its state at the end of the way.
      alpha: a number, or a tree like `params` with one for each leaf.
    """
    if pullback == "none":
        return end
    start = base.init(params) if pullback == "reset" else start

    def alpha_of(leaf, a=alpha):  # optax.masked leaves holes
        return leaf if isinstance(leaf, optax.MaskedNode) else a

    # A moment's structure may be deeper than the parameters', but not with a tree of α.
    alphas = optax.tree.map_params(
        base,
        alpha_of,
        end,
        *([] if jax.tree_util.all_leaves([alpha]) else [alpha]),
        transform_non_params=lambda _: _OTHER,
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )

    def move(a, now, then):
        if a is _OTHER:
            return now
        if pullback == "reset":
            return then.astype(now.dtype)
        # A flag for each weight also has the weight's shape.
        is_number = jnp.issubdtype(now.dtype, jnp.inexact)
        return _precision.interpolate(then, now, a) if is_number else now

    moved = jax.tree.map(move, alphas, end, start)
    if pullback == "pullback":
        return moved
    return _restart(alphas, moved, start)


def _restart(alphas, end, start):
    """`end`, with the initial values of the numbers that states keep beside moments."""

    def is_moment(name, a):
        leaves = jax.tree.leaves(a)
        of_another = name.endswith(("state", "states"))  # which a wrapper holds
        return leaves and not of_another and all(a is not _OTHER for a in leaves)

    def of_state(a, now, then):
        if not _is_state(a):
            return now
        moments = [is_moment(*field) for field in zip(a._fields, a, strict=True)]

        def of_field(is_moment, a, now, then):
            if is_moment:
                return now
            return then if any(moments) and _is_number(now) else of_all(a, now, then)

        return now._make(map(of_field, moments, a, now, then))

    def of_all(a, now, then):
        return jax.tree.map(of_state, a, now, then, is_leaf=_is_state)

    return of_all(alphas, end, start)


def _is_state(node):
    """Whether it is a NamedTuple, as the state of one transformation is."""
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _is_number(leaf):
    """Whether it is a scalar, such as a count, a mean or a flag, but no key."""
    is_scalar = getattr(leaf, "shape", None) == ()
    return is_scalar and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
