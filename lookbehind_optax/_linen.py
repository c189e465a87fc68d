"""The step for Flax linen's `TrainState`."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

from lookbehind_optax import _aux
from lookbehind_optax import _replay
from lookbehind_optax import _step

State = TypeVar("State")


def linen_step(
    state: State,
    loss_fn: Callable[..., Any],
    *args: Any,
    has_aux: bool = False,
    mutable: str | Sequence[str] = (),
    dynamic_scale: Any = None,
    switch_minibatches: bool = False,
    micro_batches: int = 1,
    m: int | None = None,
    axis_name: Any = None,
    fresh_keys: bool = False,
    **kwargs: Any,
) -> tuple[State, _step.StepOutput]:
    r"""Takes a training step with a linen `TrainState`, for any Optax optimizer.

    .. math::
        g = \nabla L_d(\phi), \qquad
        u, s \leftarrow A(g, s, \phi;\ L_d, \nabla L_d), \qquad
        \phi \leftarrow \phi + u

    It replaces `jax.value_and_grad`, and calls `state.apply_gradients` with the clean
    gradient, so anything that a subclass adds there still runs; it must not change the
    gradient. Call it inside `jax.jit`.

    Args:
      state: a `flax.training.train_state.TrainState`, or any object with its `params`,
        `opt_state`, `tx`, `replace` and `apply_gradients`.
      loss_fn: a function of `(params, *args, **kwargs)` that returns the loss, a real
        scalar; with `has_aux`, it returns a pair of the loss and anything else.
      *args: the batch.
      has_aux: as for `make_step`.
      mutable: names of variable collections, such as "batch_stats", or one name. The
        aux must be a mapping that holds their new values, as returned by
        `apply_fn(..., mutable=[...])`; they go into the fields of `state` with these
        names. If the batch is split, values in them that aren't floating-point come
        from the first part.
      dynamic_scale: as for the step of `make_step`. If a gradient overflows, the state
        is left unchanged.
      switch_minibatches: as for `make_step`.
      micro_batches: as for `make_step`. BatchNorm normalizes each part separately, and
        the new statistics are the mean over the parts.
      m: as for `make_step`. BatchNorm normalizes each group separately, and the new
        statistics are the mean over the groups.
      axis_name: as for `make_step`.
      fresh_keys: as for `make_step`.
      **kwargs: further arguments of `loss_fn`, the same for all examples.

    Returns:
      The new state, and a :class:`StepOutput`.

    Raises:
      TypeError: as `make_step`, and if `state` isn't a train state.
      ValueError: as `make_step`, for parameters of Flax's float8 layers, if the aux
        lacks a collection of `mutable`, or has batch_stats that it doesn't name, and if
        an override of `apply_gradients` changes the gradient.

    Example:
      >>> import flax.linen as nn
      >>> from flax.training import train_state
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> class TrainState(train_state.TrainState):
      ...     batch_stats: dict
      >>> model = nn.Sequential(
      ...     [nn.Dense(3), nn.BatchNorm(use_running_average=False, momentum=0.5)]
      ... )
      >>> x = jnp.array([[1.0], [3.0]])
      >>> variables = model.init(jax.random.key(0), x)
      >>> state = TrainState.create(
      ...     apply_fn=model.apply,
      ...     params=variables["params"],
      ...     batch_stats=variables["batch_stats"],
      ...     tx=lb.lookbehind_sam(optax.sgd(0.1)),
      ... )
      >>> @jax.jit
      ... def train_step(state, x):
      ...     def loss_fn(params, x):
      ...         variables = {"params": params, "batch_stats": state.batch_stats}
      ...         y, updates = state.apply_fn(variables, x, mutable=["batch_stats"])
      ...         return jnp.mean(jnp.square(y - 1.0)), updates
      ...
      ...     return lb.linen_step(
      ...         state, loss_fn, x, has_aux=True, mutable=["batch_stats"]
      ...     )
      >>> state, out = train_step(state, x)
      >>> print(state.step, round(float(out.loss), 3))
      1 2.0

    References:
      Mordido et al., `Lookbehind-SAM: k steps back, 1 step forward
      <https://arxiv.org/abs/2307.16704>`_, 2024
    """
    given: Any = state
    _check_train_state(given)
    mutable = (mutable,) if isinstance(mutable, str) else tuple(mutable)

    def loss_with_state(*args, **kwargs):
        loss, aux = _aux.pair(loss_fn(*args, **kwargs), has_aux)
        _check_collections(aux, given, mutable)
        states = {name: _aux.ModelState(aux[name]) for name in mutable}
        return loss, {**aux, **states} if mutable else aux

    step = _step.make_step(
        loss_with_state,
        _replay.recording(given.tx),
        has_aux=True,
        switch_minibatches=switch_minibatches,
        micro_batches=micro_batches,
        m=m,
        axis_name=axis_name,
        fresh_keys=fresh_keys,
    )
    recorded = _replay.start(given.params, given.opt_state)
    _, recorded, out = step(
        given.params, recorded, *args, dynamic_scale=dynamic_scale, **kwargs
    )
    fields = {name: out.aux[name].value for name in mutable}
    new = given.replace(tx=_replay.replaying(recorded)).apply_gradients(
        grads=recorded.grads, **fields
    )
    new = new.replace(tx=given.tx)
    if out.finite is not None:
        new = _step.keep_if(out.finite, new, given)
    return new, out._replace(aux={**out.aux, **fields} if mutable else out.aux)


def _check_train_state(state):
    """Refuses what isn't one, and Flax's float8 layers with statistics in `params`."""
    if not hasattr(state, "apply_gradients"):
        raise TypeError(
            "state must be a TrainState, as in linen_step(state, loss_fn, ...); got a "
            f"{type(state).__name__}."
        )
    overwritten = "_overwrite_with_gradient"
    if isinstance(state.params, Mapping) and overwritten in state.params:
        raise ValueError(
            "params must not hold the collection '_overwrite_with_gradient' of Flax's "
            "float8 layers: the values that overwrite it aren't gradients, so there is "
            "nothing to climb along."
        )


def _check_collections(aux, state, mutable):
    """Checks that the aux holds what `mutable` names, and no statistics besides."""
    held = aux.keys() if isinstance(aux, Mapping) else ()
    if missing := [name for name in mutable if name not in held]:
        got = f"the names {sorted(held)}" if held else f"a {type(aux).__name__}"
        raise ValueError(
            f"aux must be a mapping with {missing}, as mutable says; got {got}."
        )
    # BatchNorm's; other collections may be in the aux to be read.
    stats = "batch_stats"
    if stats in held and hasattr(state, stats) and stats not in mutable:
        raise ValueError(
            f"mutable must name {stats!r}, which both aux and state hold, as in "
            f"mutable=[{stats!r}]; got {mutable}. To discard the new statistics, leave "
            "them out of the aux."
        )
