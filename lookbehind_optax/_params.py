"""Checks of parameters and of trees like them, and masks of the perturbed ones."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lookbehind_optax import _numbers
from lookbehind_optax import _precision
from lookbehind_optax import _trees

Mask = Any  # a tree of booleans, or a function from params to one


def check_params(params: Any) -> None:
    """Checks that parameters are given, and can take a real step along a gradient."""
    if params is None:
        raise ValueError("params must be passed: update(grads, state, params, ...).")
    _check_no_statistics(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
            got = _numbers.describe(leaf) if dtype is None else dtype
            raise TypeError(
                "params must hold floating-point or complex arrays; the leaf "
                f"{_at(path)} is {got}. "
                "Remove untrained leaves from params, and convert the rest to arrays."
            )


def _check_no_statistics(params):
    """Refuses NNX's floating-point variables that no gradient trains."""
    nnx = sys.modules.get("flax.nnx")  # who has such a variable has imported it
    if nnx is None:
        return
    untrained = (nnx.BatchStat, nnx.Cache, nnx.Intermediate)
    if found := _trees.nodes(params, untrained):
        raise TypeError(
            f"params must hold only parameters; got an nnx.{type(found[0]).__name__} "
            "in it. Use nnx_step for a whole nnx.Module, or take the parameters out of "
            "it: graphdef, params, rest = nnx.split(model, nnx.Param, ...)."
        )


def check_whole(params: Any) -> None:
    """Checks that no parameters are masked away, as the loss needs all of them."""
    if _trees.nodes(params, optax.MaskedNode):
        raise ValueError(
            "params must be whole; got optax.MaskedNode in it, as from optax.masked or "
            "optax.partition around a sharpness-aware optimizer. Put them inside it, "
            "as in lb.sam(optax.partition(...)), and say with mask= what to perturb."
        )


def check_like_params(name: str, tree: Any, params: Any) -> None:
    """Checks that `tree` has the structure and shapes of `params`, in any precision."""
    got, expected = jax.tree.structure(tree), jax.tree.structure(params)
    if got != expected:
        raise ValueError(
            f"{name} must be a tree like params; got the structure\n  {got}\n"
            f"instead of\n  {expected}"
        )
    for (path, x), p in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(params), strict=True
    ):
        dtype = getattr(x, "dtype", None)
        kind = jnp.inexact if jnp.iscomplexobj(p) else jnp.floating
        if dtype is None or not jnp.issubdtype(dtype, kind):
            raise ValueError(
                f"{name} must hold arrays of floating-point numbers, complex where "
                f"params are; the leaf {_at(path)} is "
                f"{_numbers.describe(x) if dtype is None else dtype}."
            )
        if jnp.shape(x) != jnp.shape(p):
            raise ValueError(
                f"{name} must have the shapes of params; the leaf {_at(path)} has "
                f"{jnp.shape(x)} instead of {jnp.shape(p)}."
            )


def masked(mask: Mask | None, params: Any) -> Any:
    """The mask broadcast to the structure of params, a bool for each leaf."""
    if mask is None or not jax.tree.leaves(params):
        # `optax.tree.map_params` probes init with a tree without leaves.
        return jax.tree.map(lambda _: True, params)
    # A module with a __call__ can be a tree of booleans; a function is a leaf.
    is_function = callable(mask) and jax.tree_util.all_leaves([mask])
    tree = mask(params) if is_function else mask

    def broadcast(path, keep, subtree):
        if not isinstance(keep, (bool, np.bool_)):
            raise TypeError(
                "mask must be a tree of booleans or a function from params to one; "
                f"the leaf {_at(path)} is {_numbers.describe(keep)}."
            )
        return jax.tree.map(lambda _: bool(keep), subtree)

    try:
        keep = jax.tree_util.tree_map_with_path(broadcast, tree, params)
    except ValueError as error:
        raise ValueError(
            "mask must have the structure of params, or of a prefix of it; got\n"
            f"  {jax.tree.structure(tree)}\nfor params\n  {jax.tree.structure(params)}"
        ) from error
    if not any(jax.tree.leaves(keep)):
        raise ValueError(
            "mask must leave something to perturb; got a mask without a True. (Under "
            "optax.inject_hyperparams, a mask that is a function needs "
            "static_args=('mask',); for a step without a climb, use k=0.)"
        )
    return keep


def trainable(params: Any) -> Any:
    """The parameters with None in place of leaves that aren't floating-point arrays."""
    found = _precision.floats(params)
    if not jax.tree.leaves(found):
        check_params(params)  # raises, and says what they are
    return found


def merge(trained: Any, params: Any) -> Any:
    """The parameters with the leaves of `trained`, a tree like that of `trainable`."""

    def choose(new, old):
        return old if new is None else new

    return jax.tree.map(choose, trained, params, is_leaf=lambda x: x is None)


def _at(path):
    return f"params{jax.tree_util.keystr(path)}"
