"""The step for Flax NNX's modules and `nnx.Optimizer`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lookbehind_optax import _checks
from lookbehind_optax import _step


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

    It replaces `nnx.value_and_grad` and `optimizer.update`. Call it inside `nnx.jit`.
    What else the forward pass changes in the model (BatchNorm's statistics, counters of
    random streams) is changed by the clean pass alone: all evaluations of a step start
    from the same, and share dropout masks. Where the batch is split, floating-point
    values are averaged over the parts, and others come from the first.

    Args:
      model: an `nnx.Module`.
      optimizer: the `nnx.Optimizer` made for it, around any Optax optimizer. Its `wrt`
        says what the parameters are.
      loss_fn: from `(model, *args, **kwargs)` to the loss, a real scalar, or with
        `has_aux` to a pair of it and anything else.
      *args: the batch.
      has_aux: as for `make_step`.
      dynamic_scale: as for the step of `make_step`. Where a gradient overflows, model
        and optimizer stay as they are.
      switch_minibatches: as for `make_step`.
      micro_batches: as for `make_step`. BatchNorm normalises each part by itself, and
        the new statistics are the mean over the parts.
      m: as for `make_step`. BatchNorm normalises each group by itself, and the new
        statistics are the mean over the groups.
      axis_name: as for `make_step`.
      fresh_keys: as for `make_step`; the keys of the model's own random streams are
        among those folded.
      **kwargs: further arguments of `loss_fn`, the same for all examples.

    Returns:
      A :class:`StepOutput`.

    Raises:
      TypeError: as `make_step`.
      ValueError: as `make_step`, and if the optimizer was made for another model.

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

    if isinstance(model, nnx.State):
        raise TypeError("model must be an NNX module; got an nnx.State of one.")
    _checks.check_instance("optimizer", optimizer, nnx.Optimizer)
    _check_arguments((args, kwargs), (nnx.Rngs, nnx.RngStream))
    _checks.check_function("loss_fn", loss_fn)
    _checks.check_boolean("has_aux", has_aux)
    filters = optimizer.wrt, _is_key, ...
    graphdef, params, keys, rest = nnx.split(model, *filters)
    params, keys, rest = nnx.as_pure((params, keys, rest))
    opt_state = nnx.as_pure(optimizer.opt_state)
    _checks.check_belongs(optimizer.tx, opt_state, params)

    def pure_loss(params, *args, of_model, **kwargs):
        copy = nnx.merge(graphdef, params, *of_model)
        loss, aux = _checks.check_aux(loss_fn(copy, *args, **kwargs), has_aux)
        # Keys may be folded, and of a random stream only the counter changes in use.
        _, _, _, rest = nnx.split(copy, *filters)
        return loss, aux, rest

    step = _step.make_carrying_step(
        pure_loss,
        optimizer.tx,
        switch_minibatches=switch_minibatches,
        micro_batches=micro_batches,
        m=m,
        axis_name=axis_name,
        fresh_keys=fresh_keys,
    )
    params, opt_state, out, carried = step(
        params,
        opt_state,
        *args,
        dynamic_scale=dynamic_scale,
        of_model=(keys, rest),
        **kwargs,
    )
    count = optimizer.step[...] + 1
    if out.finite is not None:
        carried, count = _step.keep_if(
            out.finite, (carried, count), (nnx.state(model), optimizer.step[...])
        )
    nnx.update(model, params, carried)
    nnx.update(optimizer.opt_state, nnx.state(opt_state))
    optimizer.step[...] = count
    return out


def _is_key(path, variable):
    dtype = getattr(variable, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _check_arguments(arguments, stateful):
    def is_stateful(node):
        return isinstance(node, stateful)

    if any(map(is_stateful, jax.tree.leaves(arguments, is_leaf=is_stateful))):
        raise TypeError(
            "args must hold no nnx.Rngs, whose counters the loss would change: keep "
            "them in the model, or pass a key and make the nnx.Rngs in the loss."
        )
