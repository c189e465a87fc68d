"""The batch of a step: arrays with examples along one axis, which may be split."""

import jax
import jax.numpy as jnp


def split(args, leading, m, micro_batches):
    """The positional arguments, with an additional axis of groups if `m` is given.

    Args:
      args: a tree of arrays with examples along the axis `leading`: 0, or 1 after an
        axis of minibatches.
      leading: that axis, where the groups will be.
      m: the size of a group; None for one group without an additional axis.
      micro_batches: the number of parts into which each group will be split.
    """
    args = jax.tree.map(jnp.asarray, args)
    examples = _examples(args, leading)
    if m is not None:
        _check_divides("m", m, examples)
        examples = m
        args = jax.tree.map(
            lambda x: x.reshape(*x.shape[:leading], -1, m, *x.shape[leading + 1 :]),
            args,
        )
    _check_divides("micro_batches", micro_batches, examples)
    return args


def twice(batch, axis):
    """The batch with each example twice; scalars and keys are left unchanged."""
    return jax.tree.map(
        lambda x: jnp.concatenate([x, x], axis) if jnp.ndim(x) > axis else x, batch
    )


def _examples(batch, leading):
    """The number of examples: the size of every leaf along axis `leading`."""
    wanted = (
        "the batch must consist of arrays with minibatches along the first axis and "
        "examples along the second"
        if leading
        else "the batch must consist of arrays with examples along the leading axis"
    )
    advice = " Pass by keyword any value that is the same for all examples."
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    if not leaves:
        raise ValueError(f"{wanted}; got no positional argument.{advice}")
    sizes = {x.shape[: leading + 1] for _, x in leaves}
    if len(sizes) > 1 or any(x.ndim <= leading or x.size == 0 for _, x in leaves):
        listed = ", ".join(
            f"args{jax.tree_util.keystr(path)}: {x.shape}" for path, x in leaves
        )
        raise ValueError(f"{wanted}, the same number in each; got {listed}.{advice}")
    return sizes.pop()[leading]


def _check_divides(name, value, examples):
    if examples % value:
        raise ValueError(
            f"{name} must divide the number of examples; got {name} = {value} and "
            f"{examples} examples."
        )
