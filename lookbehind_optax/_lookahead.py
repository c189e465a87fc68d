"""Lookahead: fast weights run ahead for k minibatches, then the slow weights follow."""

from typing import Any
from typing import NamedTuple
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _moments
from lookbehind_optax import _numbers
from lookbehind_optax import _params
from lookbehind_optax import _precision
from lookbehind_optax import _transformations
from lookbehind_optax import _trees

Params = TypeVar("Params")


class LookaheadState(NamedTuple):
    """State of `lookahead`.

    Attributes:
      count: steps (minibatches) taken; int32 scalar.
      slow: the slow weights; a copy of the parameters.
      last_sync: the base's state at the last synchronization if `pullback` is
        "pullback", else None.
      base_state: state of the base optimizer.
      outer_state: state of the slow weights' optimizer; None if there is none.

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
    outer_state: Any


def lookahead(
    base: optax.GradientTransformation,
    k: int = 5,
    alpha: _numbers.ScalarOrSchedule | None = None,
    outer: optax.GradientTransformation | None = None,
    *,
    pullback: str = "none",
) -> optax.GradientTransformationExtraArgs:
    r"""Steps back, by 1 − α of the way, after every k steps of any optimizer.

    The parameters are the fast weights :math:`\theta`, and the base optimizer A moves
    them. Every k-th step, the slow weights :math:`\phi` follow and the fast weights
    restart from there:

    .. math::
        \theta \leftarrow \theta + A(g, \theta), \qquad
        \phi \leftarrow \phi + \alpha (\theta - \phi), \qquad \theta \leftarrow \phi

    An optimizer O of the slow weights, `outer`, can replace α. The slow weights then
    move by :math:`O(\phi - \theta, \phi)`, with the way back as the gradient.
    `optax.sgd(alpha)` is equivalent to α, and
    `optax.sgd(0.7, momentum=0.9, nesterov=True)` is the outer optimizer of DiLoCo.

    The parameters stay an ordinary tree, so this works wherever an Optax optimizer
    does, including `lookahead(sam(...))`. Take gradients at the parameters, and
    evaluate at `eval_params(state, params)`. Nothing after this in a chain may change
    the updates.

    Args:
      base: the optimizer of the fast weights.
      k: steps between synchronizations, at least 1.
      alpha: α ≥ 0, the step of the slow weights as a share of :math:`\theta - \phi`; a
        scalar or a schedule that counts steps; 0.5 by default. The slow weights move α
        times as far as the base optimizer alone would move them.
      outer: an optimizer of the slow weights, in place of α. Its schedules count
        synchronizations.
      pullback: what a synchronization does to those leaves of the base's state that
        have the shape of the parameters (momentum, moments): "none" leaves them,
        "reset" restores their initial values, with those of the numbers beside them,
        such as Adam's count, "pullback" interpolates them by α from their values at the
        last synchronization. Schedules are left alone.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`. Besides the states of the base
      and of `outer`, its state holds a copy of the parameters and, with "pullback", a
      copy of the base's state. `update` needs `params`; extra arguments go to the base.

    Raises:
      TypeError: if an argument has the wrong type; `init` and `update` raise it for
        parameters that aren't floating-point or complex arrays, and `init` for a base
        that keeps a copy of them, such as another lookahead; with "reset", for one that
        estimates its learning rate, such as `optax.contrib.prodigy`; with "reset" and
        "pullback", for one that sums gradients over steps, such as `optax.MultiSteps`.
      ValueError: if k < 1, α is negative or not finite (where that is known
        statically), `pullback` is unknown, or `outer` is combined with α or
        "pullback"; `update` raises it if `params` is missing and for gradients that
        don't match them.

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
      <https://arxiv.org/abs/1907.08610>`_, 2019, Algorithm 1; for `outer`, Douillard et
      al., `DiLoCo <https://arxiv.org/abs/2311.08105>`_, 2023
    """
    _numbers.check_count("k", k, minimum=1)
    base = _transformations.accept("base", base)
    _moments.check(pullback)
    if outer is not None:
        outer = _transformations.accept("outer", outer)
    if outer is not None and (alpha is not None or pullback == "pullback"):
        raise ValueError(
            "outer takes the place of alpha, so neither alpha nor pullback='pullback' "
            f"works with it; got alpha={alpha!r}, pullback={pullback!r}. "
            "For a step of alpha, pass outer=optax.sgd(alpha)."
        )
    alpha = 0.5 if alpha is None else alpha
    _numbers.check_number("alpha", alpha)

    def init_fn(params):
        _params.check_params(params)
        base_state = base.init(params)
        _moments.check_base(pullback, base_state, LookaheadState)
        return LookaheadState(
            count=jnp.zeros([], jnp.int32),
            slow=_copy(params),  # params and state may both be donated
            last_sync=_copy(base_state) if pullback == "pullback" else None,
            base_state=base_state,
            outer_state=None if outer is None else outer.init(params),
        )

    def slow_step(a, outer_state, phi, theta):
        """The slow weights after a synchronization."""
        if outer is None:
            back = jax.tree.map(
                lambda f, t: _precision.interpolate(f, t, a), phi, theta
            )
            return back, None
        way_back = optax.tree.sub(phi, theta)
        u, outer_state = outer.update(way_back, outer_state, phi)
        return optax.apply_updates(phi, u), outer_state

    def update_fn(updates, state, params=None, **extra_args):
        _params.check_params(params)
        _params.check_like_params("grads", updates, params)
        _moments.check_base(pullback, state.base_state, LookaheadState)
        u, base_state = base.update(updates, state.base_state, params, **extra_args)
        u = _precision.cast_like(u, params)
        base_state = _precision.cast_like(base_state, state.base_state)
        count = jnp.asarray(optax.safe_increment(state.count))
        is_sync = count % k == 0
        a = _numbers.at_step("alpha", alpha, state.count, params)

        def at_sync(new, old):
            return jax.tree.map(lambda x, y: jnp.where(is_sync, x, y), new, old)

        # The fast weights arrive at θ + u and restart from `phi`: one update of θ does
        # both.
        theta = optax.tree.add(params, u)
        phi, outer_state = slow_step(a, state.outer_state, state.slow, theta)
        u = at_sync(optax.tree.sub(phi, params), u)
        moments = _moments.pull_back(
            pullback, base, optax.tree.add(params, u), state.last_sync, base_state, a
        )
        base_state = at_sync(moments, base_state)
        last_sync = state.last_sync
        if pullback == "pullback":
            last_sync = at_sync(base_state, last_sync)
        return u, LookaheadState(
            count=count,
            # Not `phi` but the result of the caller's addition, so that fast and slow
            # weights are the same to the last bit after a synchronization.
            slow=at_sync(optax.tree.add(params, u), state.slow),
            last_sync=last_sync,
            base_state=base_state,
            outer_state=at_sync(outer_state, state.outer_state),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def eval_params(state: optax.OptState, params: Params) -> Params:
    """The parameters to evaluate: the slow weights of a lookahead, if there is one.

    Args:
      state: any optimizer's state; a lookahead may be anywhere in it, inside
        `optax.chain`, `optax.partition`, `optax.MultiSteps` and the like.
      params: the parameters that the optimizer updates, the fast weights.

    Returns:
      A tree like `params`: the slow weights of the lookahead, or `params` if there is
      none; with `optax.partition`, leaf by leaf.

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

    def is_hole(node):  # of optax.partition, or of an Equinox module
        return node is None or isinstance(node, optax.MaskedNode)

    for lookahead_state in _trees.nodes(state, LookaheadState):
        params = jax.tree.map(
            lambda slow, p: p if is_hole(slow) else slow,
            lookahead_state.slow,
            params,
            is_leaf=is_hole,
        )
    return params


def _copy(tree):
    return jax.tree.map(jnp.copy, tree)
