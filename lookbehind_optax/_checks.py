"""Bad input, refused with the argument's name, what came and what should have."""

from collections.abc import Collection
from collections.abc import Mapping
import numbers
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from lookbehind_optax import _precision


def check_transformation(name, value, example):
    if not isinstance(value, optax.GradientTransformation):
        raise TypeError(
            f"{name} must be an optax.GradientTransformation, such as {example}; "
            f"got {_describe(value)}. (Of optax.MultiSteps as a base, pass its "
            "`.gradient_transformation()`; around a sharpness-aware optimizer, use "
            "the micro_batches of make_step in its place.)"
        )


def check_count(name, value, minimum):
    """Counts shape the program, so they are Python integers, never traced."""
    if isinstance(value, (jax.Array, jax.core.Tracer)):
        raise TypeError(
            f"{name} must be a Python integer, because it shapes the program; "
            f"got a JAX array. (Under optax.inject_hyperparams, pass "
            f"static_args=('{name}',).)"
        )
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer; got {_describe(value)}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value}.")


def check_number(name, value: Any, *, schedule):
    """A non-negative scalar, or a schedule of them where `schedule` allows it.

    Values under a trace, and what schedules will return, can't be seen here.
    """
    if schedule and callable(value):
        return
    wanted = "a non-negative number" + (" or an optax schedule" if schedule else "")
    types: Any = (int, float, np.ndarray, np.generic, jax.Array)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, types):
        raise TypeError(f"{name} must be {wanted}; got {_describe(value)}.")
    check_scalar(name, value)
    dtype = jnp.result_type(value)
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(f"{name} must be {wanted}; got dtype {dtype}.")
    if isinstance(value, jax.core.Tracer):
        return
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be {wanted}, and finite; got {value}.")


def check_scalar(name, value: Any):
    if jnp.shape(value) != ():
        raise ValueError(
            f"{name} must be a scalar, or a schedule of scalars; "
            f"got shape {jnp.shape(value)}."
        )


def check_function(name, value):
    if not callable(value):
        raise TypeError(f"{name} must be a function; got {_describe(value)}.")


def check_axis_name(value):
    names = value if isinstance(value, tuple) else (value,)
    if value is not None and not (names and all(isinstance(n, str) for n in names)):
        raise TypeError(
            "axis_name must be the name of an axis, or a tuple of names; "
            f"got {_describe(value)}."
        )


def check_boolean(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a boolean; got {_describe(value)}.")


def check_choice(name, value, choices):
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {listed}; got {value!r}.")


def check_state(state, kind):
    if not isinstance(state, kind):
        raise TypeError(
            f"state must be a {kind.__name__}, from the init of a sharpness-aware "
            f"optimizer; got {type(state)}. (To go on from the state of its base "
            "optimizer, pass optimizer.init(params)._replace(base_state=...).)"
        )


def check_params(params):
    """Parameters are there, and can be moved by a real step along a gradient."""
    if params is None:
        raise ValueError(
            "params must be passed to update: update(grads, state, params, ...)."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                "params must hold floating-point or complex arrays; the leaf "
                f"{_at(path)} is {_describe(leaf) if dtype is None else dtype}. "
                "Take what is not trained out of params, and make arrays of the rest."
            )


def check_whole(params):
    """The loss is called with all of the parameters, so none may be masked away."""

    def is_hole(node):
        return isinstance(node, optax.MaskedNode)

    if any(map(is_hole, jax.tree.leaves(params, is_leaf=is_hole))):
        raise ValueError(
            "params must be whole; got optax.MaskedNode in it, as from optax.masked or "
            "optax.partition around a sharpness-aware optimizer. Wrap it around them, "
            "as in lb.sam(optax.partition(...)), and say with mask= what to perturb."
        )


def check_like_params(name, tree, params):
    """`tree` has the structure and the shapes of `params`; its precision may differ."""
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
                f"{_describe(x) if dtype is None else dtype}."
            )
        if jnp.shape(x) != jnp.shape(p):
            raise ValueError(
                f"{name} must have the shapes of params; the leaf {_at(path)} has "
                f"{jnp.shape(x)} instead of {jnp.shape(p)}."
            )


def check_mask(mask, params):
    """Returns the mask broadcast to the structure of params, a bool for each leaf."""
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
                f"the leaf {_at(path)} is {_describe(keep)}."
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
            "mask must leave something to perturb; got one without a True. (Under "
            "optax.inject_hyperparams, a function needs static_args=('mask',); for a "
            "step without a climb, use k=0.)"
        )
    return keep


def check_aux(result, has_aux) -> tuple[Any, Any]:
    """Returns the loss and the aux of what a loss function returned."""
    if not has_aux:
        if isinstance(result, (tuple, list)):
            raise TypeError(
                f"loss_fn must return a real scalar; got {_summary(result)}. "
                "If it is a pair of a loss and an aux, pass has_aux=True."
            )
        return result, None
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            "with has_aux=True, loss_fn must return a pair (loss, aux); "
            f"got {_summary(result)}."
        )
    return result


def check_loss(loss):
    dtype = getattr(loss, "dtype", None)
    is_real = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    if not is_real or jnp.shape(loss) != ():
        advice = " Of losses for each example, return the mean." * (dtype is not None)
        raise TypeError(
            f"loss_fn must return a real scalar; got {_summary(loss)}.{advice}"
        )


def check_means(name, tree, twice):
    """Leaves of the tree can be means over examples, so means of them are, too.

    What has another shape once each example is there `twice` holds one entry for each.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for path, x in leaves:
        if not hasattr(x, "dtype") or not _precision.is_float(x):
            raise TypeError(
                f"{name} must hold floating-point means where it is averaged over "
                f"micro-batches or groups; {_leaf(name, path)} is {_summary(x)}."
            )
    if all(jnp.shape(x) == () for _, x in leaves):
        return
    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(twice))]
    for (path, x), shape in zip(leaves, shapes, strict=True):
        if jnp.shape(x) != shape:
            raise TypeError(
                f"{name} must hold means over examples where it is averaged over "
                f"micro-batches or groups; the shape of {_leaf(name, path)}, "
                f"{_summary(x)}, depends on the number of examples."
            )


def check_batch(batch, leading) -> int:
    """Returns the number of examples, the size of all leaves along axis `leading`."""
    wanted = (
        "the batch must consist of arrays with minibatches along the first axis and "
        "examples along the second"
        if leading
        else "the batch must consist of arrays with examples along the leading axis"
    )
    advice = " Pass by keyword what is the same for all examples."
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    if not leaves:
        raise ValueError(f"{wanted}; got no positional argument.{advice}")
    sizes = {x.shape[: leading + 1] for _, x in leaves}
    if len(sizes) > 1 or any(x.ndim <= leading or x.size == 0 for _, x in leaves):
        listed = ", ".join(f"{_leaf('args', path)}: {x.shape}" for path, x in leaves)
        raise ValueError(f"{wanted}, as many in each; got {listed}.{advice}")
    return sizes.pop()[leading]


def check_divides(name, value, examples):
    if examples % value:
        raise ValueError(
            f"{name} must divide the number of examples; got {name} = {value} and "
            f"{examples} examples."
        )


def check_dynamic_scale(value):
    is_one = hasattr(value, "scale") and hasattr(value, "value_and_grad")
    if isinstance(value, type) or not is_one:
        raise TypeError(
            "dynamic_scale must be flax.training.dynamic_scale.DynamicScale(), or have "
            f"its value_and_grad; got {_describe(value)}."
        )


def check_instance(name, value, kind):
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be an nnx.{kind.__name__}; got {type(value)}.")


def check_belongs(optimizer, opt_state, params):
    """The state is one that the optimizer could have made for these parameters."""
    made = jax.eval_shape(optimizer.init, params)
    for what, of in (
        ("structure", jax.tree.structure),
        ("shapes", lambda tree: [jnp.shape(x) for x in jax.tree.leaves(tree)]),
    ):
        if of(made) != of(opt_state):
            raise ValueError(
                f"optimizer must have been made for model; the {what} of its state "
                f"would then be\n  {of(made)}\nbut is\n  {of(opt_state)}"
            )


def check_train_state(state, mutable):
    if isinstance(mutable, str) or not isinstance(mutable, Collection):
        raise TypeError(f"mutable must be a sequence of names; got {mutable!r}.")
    for name in ("params", "opt_state", "tx", "step", "replace", *mutable):
        if not hasattr(state, name):
            why = " (from mutable)" if name in mutable else ""
            raise TypeError(
                f"state must be a TrainState with the field {name!r}{why}; "
                f"got {type(state)}."
            )


def check_no_overwriting(params):
    """Flax's float8 layers keep statistics among the parameters, not to be trained."""
    if isinstance(params, Mapping) and "_overwrite_with_gradient" in params:
        raise ValueError(
            "params must not hold the collection '_overwrite_with_gradient' of Flax's "
            "float8 layers: what overwrites them is no gradient to climb along."
        )


def check_mutable(aux, mutable):
    for name in mutable:
        if not isinstance(aux, Mapping) or name not in aux:
            got = list(aux) if isinstance(aux, Mapping) else type(aux)
            raise TypeError(
                f"with mutable={mutable!r}, loss_fn must return (loss, aux) with "
                f"{name!r} in the mapping aux (and has_aux=True); got {got}."
            )


def _leaf(name, path):
    return f"{name}{jax.tree_util.keystr(path)}"


def _summary(tree):
    """Types and shapes in place of values, which a trace doesn't have."""

    def summary(x):
        dtype = getattr(x, "dtype", None)
        return _describe(x) if dtype is None else f"{dtype}{list(jnp.shape(x))}"

    leaves = jax.tree.leaves(tree, is_leaf=lambda x: x is None)
    if len(leaves) == 1 and leaves[0] is tree:
        return summary(tree)
    return f"{type(tree).__name__} of " + (", ".join(map(summary, leaves)) or "nothing")


def _at(path):
    return f"params{jax.tree_util.keystr(path)}"


def _describe(value):
    return f"{value!r} of type {type(value).__name__}"


def check_positive(name: str, value: Any) -> list[float]:
    """One positive number or several, as a list."""
    values = np.atleast_1d(np.asarray(value))
    if values.ndim != 1 or not values.size or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} must be a positive number or a vector of them; got {value!r}."
        )
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"{name} must be positive and finite; got {value!r}.")
    return values.astype(np.float64).tolist()
