"""Lookahead: the fast weights run ahead for k minibatches, the slow weights follow."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _checks
from lookbehind_optax import _precision


class LookaheadState(NamedTuple):
    """State of `lookahead`.

    Attributes:
      count: steps (minibatches) taken; int32 scalar.
      slow: the slow weights; a copy of the parameters.
      last_sync: the base's state at the last synchronisation where `pullback` is
        "pullback", else None.
      base_state: state of the base optimizer.

    Example:
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> state = lb.lookahead(optax.sgd(0.1)).init(jnp.ones(2))
      >>> print(state.count, state.slow)
      0 [1. 1.]
    """

    count: jax.typing.ArrayLike
    slow: optax.Params
    last_sync: Any
    base_state: optax.OptState


def lookahead(
    base: optax.GradientTransformation,
    k: int = 5,
    alpha: jax.typing.ArrayLike | optax.Schedule = 0.5,
    *,
    pullback: str = "none",
) -> optax.GradientTransformationExtraArgs:
    r"""Steps back by 1 − α after every k steps of any optimizer.

    The parameters are the fast weights :math:`\theta`, and the base optimizer A moves
    them. Every k-th step, the slow weights :math:`\phi` follow and the fast ones
    start again from there:

    .. math::
        \theta \leftarrow \theta + A(g, \theta), \qquad
        \phi \leftarrow \phi + \alpha (\theta - \phi), \qquad \theta \leftarrow \phi

    Parameters stay plain, so this goes wherever an Optax optimizer goes, with
    `lookahead(sam(...))` among it. Take gradients at the parameters, and evaluate at
    `eval_params(state, params)`. Nothing behind this in a chain may change the updates.

    Args:
      base: the optimizer of the fast weights.
      k: steps between synchronisations, at least 1.
      alpha: α ≥ 0, the step of the slow weights as a share of :math:`\theta - \phi`; a
        scalar or a schedule that counts steps. The slow weights move α times as far as
        the base optimizer alone would move them.
      pullback: what a synchronisation does to those leaves of the base's state that
        have the shape of the parameters (momentum, moments): "none" leaves them,
        "reset" gives them their initial values, "pullback" interpolates them by α from
        their values at the last synchronisation. Counts and schedules go on.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`. Its state holds one copy of the
      parameters, and with "pullback" one of the base's state. `update` needs `params`;
      extra arguments go to the base.

    Raises:
      TypeError: if an argument has the wrong type; `init` and `update` raise it for
        parameters that are no floating-point or complex arrays.
      ValueError: if k < 1, α is negative or not finite (where that is known
        statically) or `pullback` unknown; `update` raises it when `params` is missing
        and for gradients that don't match them.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> optimizer = lb.lookahead(optax.sgd(0.25), k=2, alpha=0.5)
      >>> params = jnp.array(8.0)
      >>> state = optimizer.init(params)
      >>> for _ in range(2):                      # 8 → 4 → 2, and back to the middle
      ...     grads = jax.grad(lambda p: p**2)(params)
      ...     updates, state = optimizer.update(grads, state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params, lb.eval_params(state, params))
      4.0 8.0
      5.0 5.0

    References:
      Zhang et al., `Lookahead Optimizer: k steps forward, 1 step back
      <https://arxiv.org/abs/1907.08610>`_, 2019, Algorithm 1
    """
    _checks.check_transformation("base", base, "optax.sgd(0.1)")
    _checks.check_count("k", k, minimum=1)
    _checks.check_number("alpha", alpha, schedule=True)
    _checks.check_choice("pullback", pullback, ("none", "reset", "pullback"))
    base = optax.with_extra_args_support(base)

    def init_fn(params):
        _checks.check_params(params)
        base_state = base.init(params)
        return LookaheadState(
            count=jnp.zeros([], jnp.int32),
            slow=_copy(params),  # params and state may both be donated
            last_sync=_copy(base_state) if pullback == "pullback" else None,
            base_state=base_state,
        )

    def update_fn(updates, state, params=None, **extra_args):
        _checks.check_params(params)
        _checks.check_like_params("grads", updates, params)
        u, base_state = base.update(updates, state.base_state, params, **extra_args)
        u = _precision.cast_like(u, params)
        count = jnp.asarray(optax.safe_increment(state.count))
        is_sync = count % k == 0
        a = alpha(state.count) if callable(alpha) else alpha
        _checks.check_scalar("alpha", a)

        # θ + u is where the fast weights arrive, φ + α (θ + u − φ) where they go from
        # there: one update of θ does both.
        def step(theta, phi, u):
            back = _interpolate(phi, theta + u, a)
            return jnp.where(is_sync, back - theta, u)

        u = jax.tree.map(step, params, state.slow, u)
        # Not `back` itself but what the caller's addition will make of it, so that fast
        # and slow weights are the same to the last bit after a synchronisation.
        slow = jax.tree.map(
            lambda phi, theta, u: jnp.where(is_sync, theta + u, phi),
            state.slow,
            params,
            u,
        )

        last_sync = state.last_sync
        if pullback == "reset":
            initial = base.init(optax.tree.add(params, u))
            base_state = _map_moments(
                base,
                lambda now, start: jnp.where(is_sync, start, now),
                base_state,
                initial,
            )
        elif pullback == "pullback":

            def pull_back(now, then):  # flags have the parameters' shape, too
                is_number = jnp.issubdtype(now.dtype, jnp.inexact)
                return _interpolate(then, now, a) if is_number else now

            base_state = _map_moments(
                base,
                lambda now, then: jnp.where(is_sync, pull_back(now, then), now),
                base_state,
                last_sync,
            )
            last_sync = _map_moments(
                base,
                lambda then, now: jnp.where(is_sync, now, then),
                last_sync,
                base_state,
            )
        return u, LookaheadState(count, slow, last_sync, base_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def eval_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The parameters to evaluate: the slow weights of a lookahead, where there is one.

    Args:
      state: any optimizer's state; a lookahead may stand anywhere in it, behind
        `optax.chain`, `optax.partition`, `optax.MultiSteps` and the like.
      params: the parameters that the optimizer updates, the fast weights.

    Returns:
      A tree like `params`: the slow weights of the outermost lookahead, or `params`
      where there is none; with `optax.partition`, leaf by leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> params = jnp.ones(2)
      >>> state = optax.chain(lb.lookahead(optax.sgd(0.1))).init(params)
      >>> print(lb.eval_params(state, params + 1), lb.eval_params((), params + 1))
      [1. 1.] [2. 2.]

    References:
      Zhang et al., `Lookahead Optimizer: k steps forward, 1 step back
      <https://arxiv.org/abs/1907.08610>`_, 2019
    """

    def is_lookahead(node):
        return isinstance(node, LookaheadState)

    def is_masked(node):
        return isinstance(node, optax.MaskedNode)

    for node in jax.tree.leaves(state, is_leaf=is_lookahead):
        if is_lookahead(node):
            params = jax.tree.map(
                lambda slow, p: p if is_masked(slow) else slow,
                node.slow,
                params,
                is_leaf=is_masked,
            )
    return params


def _interpolate(start, end, alpha):
    """start + α (end − start), in float32 or wider."""
    wide_start, wide_end = _precision.widen((start, end))
    a = jnp.asarray(alpha, wide_end.dtype)
    return (wide_start + a * (wide_end - wide_start)).astype(start.dtype)


def _map_moments(base, f, state: Any, other: Any):
    """`f(leaf, other's leaf)` on leaves shaped like parameters; the others stay."""
    is_moment = optax.tree.map_params(
        base, lambda _: True, state, transform_non_params=lambda _: False
    )
    return jax.tree.map(
        lambda m, x, y: f(x, y.astype(x.dtype)) if m else x, is_moment, state, other
    )


def _copy(tree):
    return jax.tree.map(jnp.copy, tree)
