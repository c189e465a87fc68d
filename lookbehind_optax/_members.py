"""The named optimizers: each a direction, a descent, and a number of ascent steps."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from lookbehind_optax import _descents
from lookbehind_optax import _directions
from lookbehind_optax._alpha import AdaptiveAlpha
from lookbehind_optax._climb import sharpness_aware
from lookbehind_optax._numbers import ScalarOrSchedule
from lookbehind_optax._params import Mask

Base = optax.GradientTransformation
Optimizer = optax.GradientTransformationExtraArgs
AxisName = str | tuple[str, ...] | None
Alpha = ScalarOrSchedule | AdaptiveAlpha | None
Weights = Callable[[tuple[Any, ...], jax.Array], bool] | None


def sam(
    base: Base,
    rho: ScalarOrSchedule = 0.05,
    *,
    mask: Mask = None,
    axis_name: AxisName = None,
) -> Optimizer:
    r"""Sharpness-aware minimization: descends with the gradient from one step uphill.

    .. math::
        p = \phi + \rho \frac{g}{\lVert g \rVert_2}, \qquad
        \phi \leftarrow \phi + A(\nabla L_d(p), \phi)

    with g the clean gradient at the parameters φ.

    Args:
      base: the base optimizer A, any Optax optimizer. Clipping belongs inside it.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose `update(grads, state,
      params, grad_fn=...)` takes trees of the shapes of `params`, inside `jax.jit`; see
      `sharpness_aware`. A step costs 2 gradient evaluations.

    Raises:
      TypeError: if a number has the wrong type.
      ValueError: if a number is negative or not finite, where that is known statically.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(p["kernel"] ** 2)
      >>> optimizer = lb.sam(optax.sgd(0.25), rho=0.5)
      >>> params = {"kernel": jnp.array([3.0, -4.0])}
      >>> state = optimizer.init(params)
      >>> grads = jax.grad(loss)(params)
      >>> updates, state = optimizer.update(
      ...     grads, state, params, grad_fn=lambda p, i: jax.grad(loss)(p)
      ... )
      >>> params = optax.apply_updates(params, updates)
      >>> print(jnp.array_str(params["kernel"], precision=3))
      [ 1.35 -1.8 ]

    References:
      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
      Generalization <https://arxiv.org/abs/2010.01412>`_, 2021, Algorithm 1
    """
    direction = _directions.sam_direction()
    descent = _descents.last_descent()
    return sharpness_aware(
        base, direction, descent, rho, mask=mask, axis_name=axis_name
    )


def asam(
    base: Base,
    rho: ScalarOrSchedule = 0.5,
    eta: jax.typing.ArrayLike = 0.01,
    *,
    mask: Mask = None,
    axis_name: AxisName = None,
    weights: Weights = None,
) -> Optimizer:
    r"""Adaptive SAM: like `sam`, in a ball that stretches with the weights.

    The direction is `asam_direction(eta, weights=weights)`.

    Args:
      base, mask, axis_name: as in `sam`.
      rho: ρ ≥ 0, the radius of one ascent step, relative to the size of the weights; a
        scalar or a schedule that counts steps.
      eta: η ≥ 0, added to the size of the weights, so that small ones can move.
      weights: `weights(path, leaf)` tells weights from biases; see `asam_direction`.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`; see `sharpness_aware`. A step
      costs 2 gradient evaluations.

    Raises:
      TypeError: if a number has the wrong type.
      ValueError: if a number is negative or not finite, where that is known statically.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> optimizer = lb.asam(optax.sgd(0.1), rho=0.5)

    References:
      Kwon et al., `ASAM <https://arxiv.org/abs/2102.11600>`_, 2021, Algorithm 1
    """
    direction = _directions.asam_direction(eta, weights=weights)
    descent = _descents.last_descent()
    return sharpness_aware(
        base, direction, descent, rho, mask=mask, axis_name=axis_name
    )


def multistep_sam(
    base: Base,
    rho: ScalarOrSchedule = 0.05,
    k: int = 2,
    *,
    average: bool = False,
    mask: Mask = None,
    axis_name: AxisName = None,
) -> Optimizer:
    r"""SAM with k ascent steps from each minibatch and one descent step.

    .. math::
        p_i = p_{i-1} + \rho \frac{g_{i-1}}{\lVert g_{i-1} \rVert_2}, \qquad
        g_i = \nabla L_d(p_i), \qquad
        \phi \leftarrow \phi + A(g_k, \phi)

    for i = 1, ..., k, from :math:`p_0 = \phi`; or :math:`A(\frac1k\sum_i g_i, \phi)`.

    Args:
      base: the base optimizer A, any Optax optimizer. Clipping belongs inside it.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      k: number of ascent steps, which reach up to k ρ from φ; with k = 0 this is the
        base optimizer.
      average: whether the base optimizer gets the mean of the k gradients instead of
        the last one.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose `update(grads, state,
      params, grad_fn=...)` takes trees of the shapes of `params`, inside `jax.jit`; see
      `sharpness_aware`. A step costs k + 1 gradient evaluations.

    Raises:
      TypeError: if a number has the wrong type.
      ValueError: if a number is negative or not finite, where that is known statically.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(p["kernel"] ** 2)
      >>> optimizer = lb.multistep_sam(optax.sgd(0.25), rho=0.5, k=2)
      >>> params = {"kernel": jnp.array([3.0, -4.0])}
      >>> state = optimizer.init(params)
      >>> grads = jax.grad(loss)(params)
      >>> updates, state = optimizer.update(
      ...     grads, state, params, grad_fn=lambda p, i: jax.grad(loss)(p)
      ... )
      >>> params = optax.apply_updates(params, updates)
      >>> print(jnp.array_str(params["kernel"], precision=3))
      [ 1.2 -1.6]

    References:
      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
      Generalization <https://arxiv.org/abs/2010.01412>`_, 2021; Kim et al.,
      `Exploring the Effect of Multi-step Ascent in Sharpness-Aware Minimization
      <https://arxiv.org/abs/2302.10181>`_, 2023, for `average`
    """
    direction = _directions.sam_direction()
    descent = _average(average)
    return sharpness_aware(
        base, direction, descent, rho, k, mask=mask, axis_name=axis_name
    )


def multistep_asam(
    base: Base,
    rho: ScalarOrSchedule = 0.5,
    k: int = 2,
    eta: jax.typing.ArrayLike = 0.01,
    *,
    average: bool = False,
    mask: Mask = None,
    axis_name: AxisName = None,
    weights: Weights = None,
) -> Optimizer:
    r"""Multistep-ASAM: like `multistep_sam`, in a ball that stretches with the weights.

    The direction is `asam_direction(eta, weights=weights)`.

    Args:
      base, k, average, mask, axis_name: as in `multistep_sam`.
      rho: ρ ≥ 0, the radius of one ascent step, relative to the size of the weights; a
        scalar or a schedule that counts steps.
      eta: η ≥ 0, added to the size of the weights, so that small ones can move.
      weights: `weights(path, leaf)` tells weights from biases; see `asam_direction`.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`; see `sharpness_aware`. A step
      costs k + 1 gradient evaluations.

    Raises:
      TypeError: if a number has the wrong type.
      ValueError: if a number is negative or not finite, where that is known statically.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> optimizer = lb.multistep_asam(optax.sgd(0.1), rho=0.5, k=2)

    References:
      Kwon et al., `ASAM <https://arxiv.org/abs/2102.11600>`_, 2021
    """
    direction = _directions.asam_direction(eta, weights=weights)
    descent = _average(average)
    return sharpness_aware(
        base, direction, descent, rho, k, mask=mask, axis_name=axis_name
    )


def lookbehind_sam(
    base: Base,
    rho: ScalarOrSchedule = 0.05,
    k: int = 2,
    alpha: Alpha = None,
    *,
    pullback: str = "none",
    reuse_gradients: bool = True,
    mask: Mask = None,
    axis_name: AxisName = None,
) -> Optimizer:
    r"""Lookbehind over SAM: k steps back, 1 step forward.

    .. math::
        p_i = p_{i-1} + \rho \frac{g_{i-1}}{\lVert g_{i-1} \rVert_2}, \qquad
        g_i = \nabla L_d(p_i), \qquad
        f_i = f_{i-1} + A(g_i, f_{i-1})

    for i = 1, ..., k, from :math:`p_0 = f_0 = \phi`; then the slow weights, which are
    the parameters, follow: :math:`\phi \leftarrow \phi + \alpha (f_k - \phi)`. With
    k = 1 and α = 1 this is SAM.

    Args:
      base: the base optimizer A, any Optax optimizer. Its momentum and moments advance
        k times a step, weight decay acts on the fast weights, and schedules inside it
        tick once a step.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      k: number of ascent steps, which reach up to k ρ from φ; with k = 0 this is the
        base optimizer.
      alpha: α ≥ 0, the step of the slow weights; a scalar, a schedule that counts
        steps, or `adaptive_alpha()`. By default 1/k. Without momentum in the base, a
        step is about α k times as long as the base optimizer's. With momentum β it is
        longer, because the velocity advances k times and α doesn't pull it back: on a
        quadratic with β = 0.9, the largest stable learning rate (times the curvature)
        is 3.8 for SGD; at α = 1/k it is 0.42 for k = 2, 0.28 for k = 5 and 0.27 for
        k = 10.
      pullback: "none" leaves the base's momentum and moments as they are after k
        updates (as in the paper); "pullback" moves them back with the weights, to a
        share α of the way from their values before the climb (the rates above become
        1.95, 0.86 and 0.51); "reset" restores their initial values, with those of the
        numbers beside them, such as Adam's count. Schedules are left alone.
      reuse_gradients: whether each descent gradient is also the next ascent gradient.
        If not, inner step i takes both from `grad_fn(·, i)`, as the paper does when it
        switches the minibatch inside the loop, for 2k gradient evaluations a step.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose `update(grads, state,
      params, grad_fn=...)` takes trees of the shapes of `params`, inside `jax.jit`; see
      `sharpness_aware`. A step costs k + 1 gradient evaluations.

    Raises:
      TypeError: if a number has the wrong type, and in `update` for a base that
        `pullback` can't take back; see `every_descent`.
      ValueError: if a number is negative or not finite, where that is known statically,
        or `pullback` is unknown.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(p["kernel"] ** 2)
      >>> optimizer = lb.lookbehind_sam(optax.sgd(0.25), rho=0.5, k=2, alpha=0.5)
      >>> params = {"kernel": jnp.array([3.0, -4.0])}
      >>> state = optimizer.init(params)
      >>> grads = jax.grad(loss)(params)
      >>> updates, state = optimizer.update(
      ...     grads, state, params, grad_fn=lambda p, i: jax.grad(loss)(p)
      ... )
      >>> params = optax.apply_updates(params, updates)
      >>> print(jnp.array_str(params["kernel"], precision=3))
      [ 1.275 -1.7  ]

    References:
      Mordido et al., `Lookbehind-SAM: k steps back, 1 step forward
      <https://arxiv.org/abs/2307.16704>`_, 2024, Algorithm 1
    """
    direction = _directions.sam_direction()
    descent = _descents.every_descent(alpha, pullback=pullback)
    return sharpness_aware(
        base,
        direction,
        descent,
        rho,
        k,
        reuse_gradients=reuse_gradients,
        mask=mask,
        axis_name=axis_name,
    )


def lookbehind_asam(
    base: Base,
    rho: ScalarOrSchedule = 0.5,
    k: int = 2,
    alpha: Alpha = None,
    eta: jax.typing.ArrayLike = 0.01,
    *,
    pullback: str = "none",
    reuse_gradients: bool = True,
    mask: Mask = None,
    axis_name: AxisName = None,
    weights: Weights = None,
) -> Optimizer:
    r"""Lookbehind over ASAM: like `lookbehind_sam`, in a ball that stretches.

    The direction is `asam_direction(eta, weights=weights)`.

    Args:
      base, k, alpha, pullback, reuse_gradients, mask, axis_name: as in
        `lookbehind_sam`.
      rho: ρ ≥ 0, the radius of one ascent step, relative to the size of the weights; a
        scalar or a schedule that counts steps.
      eta: η ≥ 0, added to the size of the weights, so that small ones can move.
      weights: `weights(path, leaf)` tells weights from biases; see `asam_direction`.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`; see `sharpness_aware`. A step
      costs k + 1 gradient evaluations.

    Raises:
      TypeError: if a number has the wrong type, and in `update` for a base that
        `pullback` can't take back; see `every_descent`.
      ValueError: if a number is negative or not finite, where that is known statically,
        or `pullback` is unknown.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> optimizer = lb.lookbehind_asam(optax.sgd(0.1), rho=0.5, k=2, alpha=0.5)

    References:
      Mordido et al., `Lookbehind-SAM <https://arxiv.org/abs/2307.16704>`_, 2024
    """
    direction = _directions.asam_direction(eta, weights=weights)
    descent = _descents.every_descent(alpha, pullback=pullback)
    return sharpness_aware(
        base,
        direction,
        descent,
        rho,
        k,
        reuse_gradients=reuse_gradients,
        mask=mask,
        axis_name=axis_name,
    )


def gsam(
    base: Base,
    rho: ScalarOrSchedule = 0.05,
    alpha: ScalarOrSchedule = 0.4,
    *,
    mask: Mask = None,
    axis_name: AxisName = None,
) -> Optimizer:
    r"""Surrogate-gap SAM: also narrows the gap between perturbed loss and loss.

    .. math::
        g_s = \nabla L_d\Bigl(\phi + \rho \frac{g}{\lVert g \rVert_2}\Bigr), \qquad
        \phi \leftarrow \phi + A(g_s - \alpha\, g_\perp, \phi), \qquad
        g_\perp = g - \frac{\langle g, g_s \rangle}{\lVert g_s \rVert_2^2}\, g_s

    with g the clean gradient at the parameters φ. The paper lets ρ follow the learning
    rate: pass a schedule for that.

    Args:
      base: the base optimizer A, any Optax optimizer. Clipping belongs inside it.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      alpha: α ≥ 0, how much to subtract of the clean gradient's part orthogonal to the
        perturbed gradient; a scalar or a schedule that counts steps.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`; see `sharpness_aware`. A step
      costs 2 gradient evaluations.

    Raises:
      TypeError: if a number has the wrong type.
      ValueError: if a number is out of range, where that is known statically.

    Example:
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(jnp.array([1.0, 4.0]) * p**2) / 2
      >>> optimizer = lb.gsam(optax.sgd(0.25), rho=0.5)
      >>> params = jnp.array([3.0, 1.0])  # the gradient is (3, 4)
      >>> updates, state = optimizer.update(
      ...     jnp.array([3.0, 4.0]), optimizer.init(params), params, value_fn=loss
      ... )
      >>> print(jnp.array_str(updates, precision=3))
      [-0.777 -1.428]

    References:
      Zhuang et al., `Surrogate Gap Minimization Improves Sharpness-Aware Training
      <https://arxiv.org/abs/2203.08065>`_, 2022, Algorithm 1
    """
    direction = _directions.sam_direction()
    descent = _descents.surrogate_gap_descent(alpha)
    return sharpness_aware(
        base, direction, descent, rho, mask=mask, axis_name=axis_name
    )


def wsam(
    base: Base,
    rho: ScalarOrSchedule = 0.05,
    gamma: jax.typing.ArrayLike = 0.9,
    *,
    mask: Mask = None,
    axis_name: AxisName = None,
) -> Optimizer:
    r"""Weighted SAM: minimizes the loss plus a multiple of its sharpness.

    .. math::
        g_s = \nabla L_d\Bigl(\phi + \rho \frac{g}{\lVert g \rVert_2}\Bigr), \qquad
        \phi \leftarrow \phi +
        A\Bigl(g + \frac{\gamma}{1 - \gamma} (g_s - g), \phi\Bigr)

    with g the clean gradient at the parameters φ. This is the coupled form, in which
    the base optimizer sees the sum.

    Args:
      base: the base optimizer A, any Optax optimizer. Clipping belongs inside it.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      gamma: 0 ≤ γ < 1, the weight of the sharpness; 1/2 gives SAM.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`; see `sharpness_aware`. A step
      costs 2 gradient evaluations.

    Raises:
      TypeError: if a number has the wrong type.
      ValueError: if a number is out of range, where that is known statically.

    Example:
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(jnp.array([1.0, 4.0]) * p**2) / 2
      >>> optimizer = lb.wsam(optax.sgd(0.25), rho=0.5)
      >>> params = jnp.array([3.0, 1.0])  # the gradient is (3, 4)
      >>> updates, state = optimizer.update(
      ...     jnp.array([3.0, 4.0]), optimizer.init(params), params, value_fn=loss
      ... )
      >>> print(jnp.array_str(updates, precision=3))
      [-1.425 -4.6  ]

    References:
      Yue et al., `Sharpness-Aware Minimization Revisited: Weighted Sharpness as a
      Regularization Term <https://arxiv.org/abs/2305.15817>`_, 2023, Algorithm 1
    """
    direction = _directions.sam_direction()
    descent = _descents.weighted_descent(gamma)
    return sharpness_aware(
        base, direction, descent, rho, mask=mask, axis_name=axis_name
    )


def friendly_sam(
    base: Base,
    rho: ScalarOrSchedule = 0.05,
    sigma: jax.typing.ArrayLike = 1.0,
    decay: jax.typing.ArrayLike = 0.9,
    *,
    mask: Mask = None,
    axis_name: AxisName = None,
) -> Optimizer:
    r"""Friendly SAM: ascends along the minibatch-specific part of the gradient.

    .. math::
        p = \phi + \rho \frac{g - \sigma m}{\lVert g - \sigma m \rVert_2}, \qquad
        \phi \leftarrow \phi + A(\nabla L_d(p), \phi), \qquad
        m \leftarrow \lambda m + (1 - \lambda) g

    with g the clean gradient at the parameters φ, and m its average over previous
    steps, which starts at 0.

    Args:
      base: the base optimizer A, any Optax optimizer. Clipping belongs inside it.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      sigma: σ ≥ 0, the share of the average to subtract from the gradient.
      decay: 0 ≤ λ < 1, the decay rate of the average.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`; see `sharpness_aware`. A step
      costs 2 gradient evaluations.

    Raises:
      TypeError: if a number has the wrong type.
      ValueError: if a number is out of range, where that is known statically.

    Example:
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(jnp.array([1.0, 4.0]) * p**2) / 2
      >>> optimizer = lb.friendly_sam(optax.sgd(0.25), rho=0.5)
      >>> params = jnp.array([3.0, 1.0])  # the gradient is (3, 4)
      >>> updates, state = optimizer.update(
      ...     jnp.array([3.0, 4.0]), optimizer.init(params), params, value_fn=loss
      ... )
      >>> print(jnp.array_str(updates, precision=3))
      [-0.825 -1.4  ]

    References:
      Li et al., `Friendly Sharpness-Aware Minimization
      <https://arxiv.org/abs/2403.12350>`_, 2024, Algorithm 1
    """
    direction = _directions.friendly_direction(sigma, decay)
    descent = _descents.last_descent()
    return sharpness_aware(
        base, direction, descent, rho, mask=mask, axis_name=axis_name
    )


def _average(average):
    return _descents.mean_descent() if average else _descents.last_descent()
