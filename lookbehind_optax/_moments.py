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

# The states of bases that sum gradients over steps.
_SUMS = (optax.MultiStepsState, optax.ApplyEvery)
# The states of bases that estimate their learning rate from all steps so far.
_ESTIMATES = (
    optax.contrib.DAdaptAdamWState,
    optax.contrib.DoGState,
    optax.contrib.DoWGState,
    optax.contrib.MechanicState,
    optax.contrib.ProdigyState,
    # Optax doesn't export it.
    type(jax.eval_shape(optax.scale_by_distance_over_gradients().init, ())),
)

# Marks of the leaves of a state.
_MOMENT, _OTHER = object(), object()


def check_base(pullback: str, base_state: Any, *others: type) -> None:
    """Refuses bases whose state can't be taken back in this way.

    Args:
      pullback: the name of a method.
      base_state: the base's state, which must not hold positions, since α wouldn't move
        them back.
      *others: types of other states that hold positions.
    """

    def refuse(kinds, what, instead):
        if found := _trees.nodes(base_state, kinds):
            kind = type(found[0]).__name__
            raise TypeError(f"base must not {what}; its state has a {kind}. {instead}")

    refuse(
        (*_COPIES, *others),
        "keep a copy of the parameters, which α doesn't move back with the weights",
        "Use another base; put lookahead outermost, and use it only once: "
        "lookahead(lookbehind_sam(...)).",
    )
    if pullback != "none":
        refuse(
            _SUMS,
            f'sum gradients over steps if pullback is "{pullback}", which would take '
            "back a part of the sum",
            "Accumulate outside, as in optax.MultiSteps(lookahead(...), 4).",
        )
    if pullback == "reset":
        refuse(
            _ESTIMATES,
            'estimate its learning rate if pullback is "reset", which would discard '
            "what the estimate is made from",
            'Use "none" or "pullback".',
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
    if pullback == "reset":
        return _reset(base, base.init(params), end)

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
        # A flag for each weight also has the weight's shape.
        if a is _OTHER or not jnp.issubdtype(now.dtype, jnp.inexact):
            return now
        return _precision.interpolate(then, now, a)

    return jax.tree.map(move, alphas, end, start)


def _reset(base, start, end):
    """`end`, with the moments of `start` and the numbers beside them."""
    marks = optax.tree.map_params(
        base,
        lambda _: _MOMENT,  # one for a whole tree like the parameters
        end,
        transform_non_params=lambda _: _OTHER,
        is_leaf=lambda _: True,
    )

    def restore(now, then):
        if _is_key(now):  # its draws go on
            return now
        return then if then.dtype == now.dtype else then.astype(now.dtype)

    def restored(mark, now, then):
        return jax.tree.map(restore, now, then) if mark is _MOMENT else now

    return jax.tree.map(restored, _mark_numbers(marks, end), end, start)


def _mark_numbers(marks, state):
    """`marks`, with the numbers that a state keeps beside moments marked like them."""
    if marks is _MOMENT or marks is _OTHER:
        return marks
    parts, structure = jax.tree_util.tree_flatten_with_path(
        marks, is_leaf=lambda node: node is not marks
    )
    beside = any(_holds_moments(path, mark) for path, mark in parts)

    def marked(mark, now):
        is_number = beside and mark is _OTHER and _is_number(now)
        return _MOMENT if is_number else _mark_numbers(mark, now)

    values = structure.flatten_up_to(state)
    return structure.unflatten(
        marked(mark, now) for (_, mark), now in zip(parts, values, strict=True)
    )


def _holds_moments(path, mark):
    """Whether a part of a state is made of moments, and isn't another's state."""
    name = jax.tree_util.keystr(path, simple=True)
    leaves = jax.tree.leaves(mark, is_leaf=_is_state)
    if not leaves or name.endswith(("state", "states")):  # as wrappers name it
        return False
    return all(leaf is _MOMENT for leaf in leaves)


def _is_state(node):
    """Whether it is more than a plain container."""
    plain = type(node) in (tuple, list, dict)
    return not plain and not jax.tree_util.all_leaves([node])


def _is_number(leaf):
    """Whether it is a scalar, such as a count, a mean or a flag, but no key."""
    return getattr(leaf, "shape", None) == () and not _is_key(leaf)


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
