"""Descents: how the gradients of a climb are used.

A descent is a fold over the climb. `start(step)` returns the initial carry,
`after_ascent(step, carry, i, g)` updates it with the gradient g after ascent step
i = 0, ..., k − 1, and `finish(step, carry, g)`, given the last gradient, returns the
displacement of the fast weights, the share α by which the slow weights follow it (one
number, or a tree with one for each leaf), and the state of the base optimizer.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from lookbehind_optax import _alpha
from lookbehind_optax import _moments
from lookbehind_optax import _numbers
from lookbehind_optax import _precision
from lookbehind_optax._lookahead import LookaheadState


class Step(NamedTuple):
    """The current step, as directions and descents see it.

    Attributes:
      count: steps (minibatches) taken before this one; int32 scalar.
      k: number of ascent steps, at least 1.
      params: the parameters φ.
      grads: the clean gradient, at φ; if the optimizer has an `axis_name`, the gradient
        of this member of the axis only.
      base: the base optimizer. Its `update(g, state, f)` averages g over the axis and
        keeps schedules at this step.
      base_state: its state before the step.
      mean: maps a tree to its mean over the axis, or to itself if there is no axis.
    """

    count: jax.Array
    k: int
    params: Any
    grads: Any
    base: optax.GradientTransformationExtraArgs
    base_state: Any
    mean: Callable[[Any], Any]


class Descent(NamedTuple):
    """A descent: how the gradients of a climb are used.

    Attributes:
      start: `start(step)` returns the initial carry, any tree.
      after_ascent: `after_ascent(step, carry, i, g)` returns the next carry, given the
        gradient g at the point that ascent step i (a traced int32) has reached.
      finish: `finish(step, carry, g)`, with the last g, returns the displacement of the
        fast weights, α (a number or a tree of them), and the base optimizer's state.

    Example:
      Descend along the gradient of the point halfway up:

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> def finish(step, carry, g):
      ...     u, state = step.base.update(carry, step.base_state, step.params)
      ...     return u, 1.0, state
      >>> halfway = lb.Descent(
      ...     start=lambda step: step.grads,
      ...     after_ascent=lambda step, carry, i, g: jax.tree.map(
      ...         lambda g, c: jnp.where(i == step.k // 2 - 1, g, c), g, carry
      ...     ),
      ...     finish=finish,
      ... )
      >>> optimizer = lb.sharpness_aware(
      ...     optax.sgd(0.1), lb.sam_direction(), halfway, rho=0.5, k=4
      ... )
      >>> loss = lambda p: jnp.sum(p**2) / 2
      >>> params = jnp.array([3.0, 4.0])
      >>> updates, _ = optimizer.update(
      ...     params, optimizer.init(params), params, value_fn=loss
      ... )
      >>> print(jnp.array_str(updates, precision=4))  # of length 0.1 · (5 + 2 · 0.5)
      [-0.36 -0.48]
    """

    start: Callable[[Step], Any]
    after_ascent: Callable[[Step, Any, Any, Any], Any]
    finish: Callable[[Step, Any, Any], tuple[Any, Any, Any]]


def last_descent() -> Descent:
    r"""One step of the base optimizer with the last gradient of the climb.

    .. math::
        \phi \leftarrow \phi + A(g_k, \phi)

    Returns:
      The :class:`Descent` of SAM and Multistep-SAM.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> sam = lb.sharpness_aware(
      ...     optax.sgd(0.1), lb.sam_direction(), lb.last_descent(), rho=0.05
      ... )

    References:
      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
      Generalization <https://arxiv.org/abs/2010.01412>`_, 2021
    """
    return _one_step(lambda step, carry, g: g)


def mean_descent() -> Descent:
    r"""One step of the base optimizer with the mean of the climb's gradients.

    .. math::
        \phi \leftarrow \phi + A\Bigl(\frac1k \sum_{i=1}^k g_i, \phi\Bigr)

    Returns:
      A :class:`Descent`. It carries one tree of the size of the parameters.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> multistep_sam = lb.sharpness_aware(
      ...     optax.sgd(0.1), lb.sam_direction(), lb.mean_descent(), rho=0.05, k=2
      ... )

    References:
      Kim et al., `Exploring the Effect of Multi-step Ascent in Sharpness-Aware
      Minimization <https://arxiv.org/abs/2302.10181>`_, 2023
    """

    def mean(step, total, g):
        return _precision.cast_like(jax.tree.map(lambda t: t / step.k, total), g)

    return _one_step(
        mean,
        start=lambda step: optax.tree.zeros_like(_precision.widen(step.grads)),
        after_ascent=lambda step, total, i, g: optax.tree.add(
            total, _precision.widen(g)
        ),
    )


def surrogate_gap_descent(alpha: _numbers.ScalarOrSchedule = 0.4) -> Descent:
    r"""One step along the perturbed gradient, corrected to narrow the surrogate gap.

    .. math::
        \phi \leftarrow \phi + A(g_s - \alpha\, g_\perp, \phi), \qquad
        g_\perp = g - \frac{\langle g, g_s \rangle}{\lVert g_s \rVert_2^2}\, g_s

    where :math:`g_s = g_k` is the last gradient of the climb and g the clean one. The
    gap is the perturbed loss minus the loss; to first order, descending along
    :math:`-g_\perp` leaves the perturbed loss unchanged and raises the loss. With
    m-SAM, each group's gradient is decomposed before averaging.

    Args:
      alpha: α ≥ 0, how much of the orthogonal part to subtract; a scalar or a schedule
        that counts steps. With 0 this is `last_descent`.

    Returns:
      The :class:`Descent` of GSAM.

    Raises:
      TypeError: if `alpha` is neither a real number nor a schedule.
      ValueError: if it is negative or not finite, where that is known statically.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> gsam = lb.sharpness_aware(
      ...     optax.sgd(0.1), lb.sam_direction(), lb.surrogate_gap_descent(0.4)
      ... )

    References:
      Zhuang et al., `Surrogate Gap Minimization Improves Sharpness-Aware Training
      <https://arxiv.org/abs/2203.08065>`_, 2022, Algorithm 1
    """
    _numbers.check_number("alpha", alpha)

    def less_the_orthogonal(step, carry, g_s):
        a = _numbers.at_step("alpha", alpha, step.count, step.params)
        g, wide = _precision.widen((step.grads, g_s))
        # If g_s is zero, so is the part of g along it.
        tiny = jnp.finfo(a.dtype).tiny
        share = _precision.dot(g, wide) / jnp.maximum(_precision.norm(wide) ** 2, tiny)

        def combine(g, g_s):
            a_, share_ = a.astype(g.dtype), share.astype(g.dtype)
            return g_s - a_ * (g - share_ * g_s)

        return _precision.cast_like(jax.tree.map(combine, g, wide), g_s)

    return _one_step(less_the_orthogonal)


def weighted_descent(gamma: jax.typing.ArrayLike = 0.9) -> Descent:
    r"""One step along the gradient of the loss plus weighted sharpness.

    .. math::
        \phi \leftarrow \phi +
        A\Bigl(g + \frac{\gamma}{1 - \gamma} (g_s - g), \phi\Bigr)

    where :math:`g_s = g_k` is the last gradient of the climb and g the clean one. The
    sum is the gradient of :math:`L + \frac{\gamma}{1-\gamma} (L_s - L)`.

    Args:
      gamma: 0 ≤ γ < 1, the weight of the sharpness: 0 gives the base optimizer, 1/2
        gives SAM, and larger values extrapolate.

    Returns:
      The :class:`Descent` of WSAM in its coupled form.

    Raises:
      TypeError: if `gamma` isn't a real number.
      ValueError: if it is not in [0, 1), where that is known statically.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> wsam = lb.sharpness_aware(
      ...     optax.sgd(0.1), lb.sam_direction(), lb.weighted_descent(0.8), rho=0.05
      ... )

    References:
      Yue et al., `Sharpness-Aware Minimization Revisited: Weighted Sharpness as a
      Regularization Term <https://arxiv.org/abs/2305.15817>`_, 2023, Algorithm 1
    """
    _numbers.check_number("gamma", gamma, schedule=False, below=1)

    def weighted(step, carry, g_s):
        g, wide = _precision.widen((step.grads, g_s))
        gamma_ = jnp.asarray(gamma, _precision.wide_dtype(g))
        weight = gamma_ / (1 - gamma_)
        mixed = jax.tree.map(lambda x, y: x + weight.astype(x.dtype) * (y - x), g, wide)
        return _precision.cast_like(mixed, g_s)

    return _one_step(weighted)


def every_descent(
    alpha: _numbers.ScalarOrSchedule | _alpha.AdaptiveAlpha | None = None,
    *,
    pullback: str = "none",
) -> Descent:
    r"""A step of the base optimizer with each gradient, then a share α of the way.

    .. math::
        f_i = f_{i-1} + A(g_i, f_{i-1}), \qquad
        \phi \leftarrow \phi + \alpha (f_k - \phi)

    starting from the fast weights :math:`f_0 = \phi`.

    Args:
      alpha: α ≥ 0, the step of the slow weights as a share of :math:`f_k - \phi`; a
        scalar, a schedule that counts steps, or `adaptive_alpha()`. By default 1/k.
      pullback: what happens to the base optimizer's momentum and moments after the k
        updates: "none" leaves them (as in the paper); "pullback" moves them back with
        the weights, to a share α of the way from their values before the climb; "reset"
        restores their initial values, with those of the numbers beside them, such as
        Adam's count. Schedules are left alone.

    Returns:
      The :class:`Descent` of Lookbehind. It carries one tree of the size of the
      parameters, and a second one for an adaptive α.

    Raises:
      TypeError: if `alpha` isn't a real number, a schedule or `adaptive_alpha()`; a
        step raises it for a base with a copy of the parameters in its state; with
        "reset", for one that estimates its learning rate, such as
        `optax.contrib.prodigy`; with "reset" and "pullback", for one that sums
        gradients over steps, such as `optax.MultiSteps`.
      ValueError: if it is negative or not finite, where that is known statically, or
        `pullback` is unknown.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> lookbehind_friendly_sam = lb.sharpness_aware(
      ...     optax.sgd(0.1), lb.friendly_direction(), lb.every_descent(), rho=0.05, k=2
      ... )

    References:
      Mordido et al., `Lookbehind-SAM: k steps back, 1 step forward
      <https://arxiv.org/abs/2307.16704>`_, 2024, Algorithm 1
    """
    adaptive = alpha if isinstance(alpha, _alpha.AdaptiveAlpha) else None
    if alpha is not None:
        _alpha.check(alpha)
    _moments.check(pullback)

    def start(step):
        _moments.check_base(pullback, step.base_state, LookaheadState)
        moved = optax.tree.zeros_like(step.params)
        first = moved if adaptive and step.k > 1 else None  # an angle needs two
        return _Fast(moved, first, step.base_state)

    def after_ascent(step, fast, i, g):
        f = optax.tree.add(step.params, fast.moved)
        u, base_state = step.base.update(g, fast.base_state, f)
        first = fast.first
        if first is not None:  # a flag in the carry, instead of i, costs traffic
            first = jax.tree.map(lambda u, v: jnp.where(i == 0, u, v), u, first)
        return _Fast(optax.tree.add(fast.moved, u), first, base_state)

    def finish(step, fast, g):
        if adaptive and fast.first is not None:
            a = _alpha.aligned(fast.first, fast.moved, per_tensor=adaptive.per_tensor)
        else:
            fixed = 1.0 if adaptive else 1 / step.k if alpha is None else alpha
            a = _numbers.at_step("alpha", fixed, step.count, step.params)
        end = step.params
        if pullback == "reset":  # the base starts again from where the weights will be
            shares = jax.tree.broadcast(a, end)
            f = optax.tree.add(end, fast.moved)
            end = jax.tree.map(_precision.interpolate, end, f, shares)
        base_state = _moments.pull_back(
            pullback, step.base, end, step.base_state, fast.base_state, a
        )
        return fast.moved, a, base_state

    return Descent(start, after_ascent, finish)


class _Fast(NamedTuple):
    # The fast weights are f = φ + moved. Carrying f − φ instead of f loses nothing to
    # rounding if it is much smaller than φ, keeps α (f − φ) exact for α = 1, and never
    # materializes f for a base optimizer that doesn't use the parameters.
    moved: optax.Updates
    first: optax.Updates | None  # the first update, if α depends on it
    base_state: optax.OptState


def _one_step(
    gradient,
    start=lambda step: None,
    after_ascent=lambda step, carry, i, g: None,
) -> Descent:
    """One step of the base optimizer from φ, with a gradient made from the climb's."""

    def finish(step, carry, g):
        g = gradient(step, carry, g)
        u, base_state = step.base.update(g, step.base_state, step.params)
        return u, 1.0, base_state

    return Descent(start, after_ascent, finish)
