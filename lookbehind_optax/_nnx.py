"""The step for Flax NNX's modules and `nnx.Optimizer`."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lookbehind_optax import _aux
from lookbehind_optax import _replay
from lookbehind_optax import _step
from lookbehind_optax import _trees


def nnx_step(
    model: Any,
    optimizer: Any,
    loss_fn: Callable[..., Any],
    *args: Any,
    has_aux: bool = False,
    dynamic_scale: Any = None,
    switch_minibatches: bool = False,
    micro_batches: int = 1,
    m: int | None = None,
    axis_name: Any = None,
    fresh_keys: bool = False,
    **kwargs: Any,
) -> _step.StepOutput:
    r"""Takes a training step with an NNX model and its optimizer, in place.

    .. math::
        g = \nabla L_d(\phi), \qquad
        u, s \leftarrow A(g, s, \phi;\ L_d, \nabla L_d), \qquad
        \phi \leftarrow \phi + u

    It replaces `nnx.value_and_grad`, and calls `optimizer.update` with the clean
    gradient, so anything that a subclass adds there still runs; it must not change the
    gradient. Call it inside `nnx.jit`. Only the clean pass updates the rest of the
    model's state (BatchNorm's statistics, counters of random streams): all evaluations
    of a step start from the same state and share dropout masks. If the batch is split,
    floating-point values of this state are averaged over the parts, and others come
    from the first part.

    Args:
      model: an `nnx.Module`.
      optimizer: the `nnx.Optimizer` made for it, around any Optax optimizer. Its `wrt`
        selects the parameters.
      loss_fn: a function of `(model, *args, **kwargs)` that returns the loss, a real
        scalar; with `has_aux`, it returns a pair of the loss and anything else.
      *args: the batch, and any `nnx.Rngs`, which advance once a step, like the model's.
        `loss_fn` may read other NNX objects, such as a teacher, but not change them.
      has_aux: as for `make_step`.
      dynamic_scale: as for the step of `make_step`. If a gradient overflows, model and
        optimizer are left unchanged.
      switch_minibatches: as for `make_step`.
      micro_batches: as for `make_step`. BatchNorm normalizes each part separately, and
        the new statistics are the mean over the parts.
      m: as for `make_step`. BatchNorm normalizes each group separately, and the new
        statistics are the mean over the groups.
      axis_name: as for `make_step`.
      fresh_keys: as for `make_step`; this includes the keys of the model's own random
        streams.
      **kwargs: further arguments of `loss_fn`, the same for all examples.

    Returns:
      A :class:`StepOutput`.

    Raises:
      TypeError: as `make_step`.
      ValueError: as `make_step`, if `loss_fn` changes an NNX object other than the
        model and `nnx.Rngs`, and if an override of `update` changes the gradient.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
      >>> optimizer = nnx.Optimizer(model, lb.sam(optax.sgd(0.1)), wrt=nnx.Param)
      >>> @nnx.jit
      ... def train_step(model, optimizer, x):
      ...     def loss_fn(model, x):
      ...         return jnp.mean(jnp.square(model(x) - 2.0 * x))
      ...
      ...     return lb.nnx_step(model, optimizer, loss_fn, x)
      >>> for _ in range(100):
      ...     out = train_step(model, optimizer, jnp.array([[1.0], [2.0]]))
      >>> print(bool(out.loss < 0.1), optimizer.step[...])
      True 100

    References:
      Mordido et al., `Lookbehind-SAM: k steps back, 1 step forward
      <https://arxiv.org/abs/2307.16704>`_, 2024
    """
    from flax import nnx

    _check_optimizer(optimizer)
    (args, kwargs), streams = _without_streams((args, kwargs))
    everything = (model, streams)
    before = nnx.as_pure(nnx.state((everything, optimizer)))
    variables = nnx.state(model, optimizer.wrt)
    params, opt_state = nnx.as_pure((variables, optimizer.opt_state))
    pure_loss, of_model = _split(everything, optimizer.wrt, loss_fn, has_aux)
    step = _step.make_step(
        pure_loss,
        _replay.recording(optimizer.tx),
        has_aux=True,
        switch_minibatches=switch_minibatches,
        micro_batches=micro_batches,
        m=m,
        axis_name=axis_name,
        fresh_keys=fresh_keys,
    )
    kwargs |= {"dynamic_scale": dynamic_scale, "of_model": of_model}
    _, recorded, out = step(params, _replay.start(params, opt_state), *args, **kwargs)
    nnx.update(everything, out.aux[1].value)
    _update(model, optimizer, _like(variables, recorded.grads), recorded)
    if out.finite is not None:
        after = nnx.as_pure(nnx.state((everything, optimizer)))
        nnx.update((everything, optimizer), _step.keep_if(out.finite, after, before))
    return out._replace(aux=out.aux[0])


def _check_optimizer(optimizer):
    from flax import nnx

    if not isinstance(optimizer, nnx.Optimizer):
        raise TypeError(
            "optimizer must be an nnx.Optimizer, as in nnx_step(model, optimizer, "
            f"loss_fn, ...); got a {type(optimizer).__name__}."
        )


def _update(model, optimizer, grads, recorded):
    """Calls the optimizer's update, or an override of it, with the step's results."""
    tx, optimizer.tx = optimizer.tx, _replay.replaying(recorded)
    try:
        optimizer.update(model, grads)
    finally:
        optimizer.tx = tx


def _split(everything, wrt, loss_fn, has_aux):
    """The loss as a pure function of the parameters, and the rest of its inputs."""
    from flax import nnx

    def is_param(path, variable):  # the model is the first of `everything`
        return path[0] == 0 and nnx.filterlib.to_predicate(wrt)(path[1:], variable)

    graphdef, like, *of_model = nnx.split(everything, is_param, _is_key, ...)

    def pure_loss(params, *args, of_model, **kwargs):
        copy = nnx.merge(graphdef, _like(nnx.as_pure(like), params), *of_model)
        args, kwargs = _with_streams((args, kwargs), copy[1])
        objects = _trees.nodes((args, kwargs), nnx.Pytree)
        values = [_values(it) for it in objects]
        loss, aux = _aux.pair(loss_fn(copy[0], *args, **kwargs), has_aux)
        _check_unchanged(objects, values)
        # Keys may be folded, and using a random stream changes only its counter.
        *_, rest = nnx.split(copy, is_param, _is_key, ...)
        return loss, (aux, _aux.ModelState(rest))

    return pure_loss, nnx.as_pure(tuple(of_model))


def _values(x):
    """Identities of the arrays of an NNX object, but for random streams."""
    leaves = jax.tree.leaves(x, is_leaf=_is_stream)
    return [id(leaf) for leaf in leaves if not _is_stream(leaf)]


def _check_unchanged(objects, values):
    """Refuses changes to objects of which the step has only copies."""
    for x, before in zip(objects, values, strict=True):
        if _values(x) != before:
            raise ValueError(
                f"loss_fn must not change the {type(x).__name__} among its arguments: "
                "nnx_step keeps only the new states of the model and of nnx.Rngs. "
                "Return what changes it in the aux, with has_aux=True, and change it "
                "after the step; or make it a part of the model."
            )


def _is_stream(x):
    from flax import nnx

    return isinstance(x, (nnx.Rngs, nnx.RngStream))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Stream:
    """A placeholder for random stream number `index` in the arguments of a loss."""

    index: int


def _without_streams(arguments):
    """The arguments with a `_Stream` for each random stream, and the streams."""
    streams = []

    def take(x):
        if not _is_stream(x):
            return x
        streams.append(x)
        return _Stream(len(streams) - 1)

    return jax.tree.map(take, arguments, is_leaf=_is_stream), streams


def _with_streams(arguments, streams):
    def is_taken(x):
        return isinstance(x, _Stream)

    def put(x):
        return streams[x.index] if is_taken(x) else x

    return jax.tree.map(put, arguments, is_leaf=is_taken)


def _like(tree, values):
    """The values in the structure of a tree with as many leaves in the same order."""
    return jax.tree.unflatten(jax.tree.structure(tree), jax.tree.leaves(values))


def _is_key(path, variable):
    dtype = getattr(variable, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
