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

# What states call their counts of updates, where they hold moments beside them.
_COUNTS = {"count", "count_m2", "t", "is_initial_step"}


def check_no_copy(base_state: Any, *others: type) -> None:
    """Refuses bases with positions of their own, which α wouldn't move back."""
    if found := _trees.nodes(base_state, (*_COPIES, *others)):
        raise TypeError(
            "base must not keep a copy of the parameters, which α doesn't move back "
            f"with the weights; its state has a {type(found[0]).__name__}. "
            "Use another base; lookahead goes outside the rest, and only once: "
            "lookahead(lookbehind_sam(...))."
        )


def pull_back(pullback, base, params, start, end, alpha) -> Any:
    """The base optimizer's state after its weights moved back to a share α of the way.

    Args:
      pullback: "none" returns `end`, "reset" restores the moments' initial values, with
        the count that corrects their bias, "pullback" interpolates them by α from
        `start`. Moments are the leaves that correspond to parameters. Schedules are
        left alone.
      base: the base optimizer.
      params: the parameters to initialize it with.
      start: its state at the beginning of the way.
      end: its state at the end of the way.
      alpha: a number, or a tree like `params` with one for each leaf.
    """
    if pullback == "none":
        return end
    start = base.init(params) if pullback == "reset" else start

    def alpha_of(leaf, a):  # optax.masked leaves holes
        return leaf if isinstance(leaf, optax.MaskedNode) else a

    alphas = optax.tree.map_params(
        base,
        alpha_of,
        end,
        jax.tree.broadcast(alpha, params),
        transform_non_params=lambda _: None,
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )

    def move(a, now, then):
        if a is None:
            return now
        if pullback == "reset":
            return then.astype(now.dtype)
        # A flag for each weight also has the weight's shape.
        is_number = jnp.issubdtype(now.dtype, jnp.inexact)
        return _precision.interpolate(then, now, a) if is_number else now

    moved = jax.tree.map(move, alphas, end, start, is_leaf=lambda x: x is None)
    if pullback == "pullback":
        return moved

    def restart(node, initial, of_moments):
        counts = _counts(node)
        if not (counts and jax.tree.leaves(of_moments)):
            return node
        return node._replace(**{name: getattr(initial, name) for name in counts})

    return jax.tree.map(
        restart, moved, start, alphas, is_leaf=lambda node: bool(_counts(node))
    )


def _counts(node: Any) -> set[str]:
    """The counts of updates in a node that is the state of one transformation."""
    fields: set[str] = set(getattr(node, "_fields", ()))
    if fields & {"base_state", "inner_state"}:  # it holds the state of another
        return set()
    return fields & _COUNTS
