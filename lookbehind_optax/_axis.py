"""Named axes, of `jax.vmap` or of `jax.shard_map`, whose members are m-SAM's groups."""

from typing import Any

import jax
import jax.numpy as jnp


def index(axis_name):
    """The index of this member of the axis, which must be bound."""
    try:
        return jax.lax.axis_index(axis_name)
    except NameError as error:
        raise ValueError(
            f"axis_name must name an axis of the jax.vmap or jax.shard_map around "
            f"the call; {axis_name!r} isn't bound there."
        ) from error


def check_new(axis_name) -> None:
    """Checks that no axis has this name yet: a `jax.vmap` inside it would hide it."""
    try:
        jax.lax.axis_index(axis_name)
    except NameError:
        return
    raise ValueError(
        f"axis_name must be a new name where m makes groups; {axis_name!r} is already "
        "an axis, over which nothing would be averaged. Leave m out for a group on "
        "each device, or jit the step with a sharded batch, without jax.pmap or "
        "jax.shard_map."
    )


def mean(axis_name, tree):
    """The mean over the axis, or the tree itself if there is none."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def first(axis_name, x):
    """The first member's array of integers, booleans or keys, on all members."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = first(axis_name, jax.random.key_data(x))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    numbers = x.astype(jnp.int32) if x.dtype == bool else x
    mine = jnp.where(index(axis_name) == 0, numbers, jnp.zeros_like(numbers))
    return jax.lax.psum(mine, axis_name).astype(x.dtype)


def everywhere(axis_name, flag):
    """Whether the flag is set on all members of the axis."""
    if axis_name is None:
        return flag
    return jax.lax.pmin(flag.astype(jnp.int32), axis_name) == 1


def local(axis_name, tree) -> Any:
    """The tree as a separate value on each member of the axis.

    Under `shard_map`, a value that varies along an axis has a different type. A loop's
    carry keeps its type, so a climb must start with a varying value. Also, the gradient
    at a point shared by all members is summed over them; at a local point, it is local.
    """
    if axis_name is None:
        return tree
    here = index(axis_name) >= 0  # always true, but varies along the axis
    return jax.tree.map(lambda x: jnp.where(here, x, x), tree)
