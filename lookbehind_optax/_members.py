"""The members by name: a direction, a number of steps, a way to use the gradients."""

from collections.abc import Callable

import jax
import optax

from lookbehind_optax import _alpha
from lookbehind_optax import _checks
from lookbehind_optax._climb import Mask
from lookbehind_optax._climb import ScalarOrSchedule
from lookbehind_optax._climb import sharpness_aware
from lookbehind_optax._directions import asam_direction
from lookbehind_optax._directions import sam_direction


def sam(
    base: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.05,
    *,
    mask: Mask | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Sharpness-aware minimization: descend with the gradient met one step uphill.

    .. math::
        p = \phi + \rho \frac{g}{\lVert g \rVert_2}, \qquad
        \phi \leftarrow \phi + A(\nabla L_d(p), \phi)

    with g the clean gradient at the parameters φ.

    Args:
      base: the base optimizer A, any Optax optimizer.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose `update(grads, state,
      params, grad_fn=...)` takes trees of the shapes of `params`, see
      `sharpness_aware`. A step costs 2 gradients.

    Raises:
      TypeError: if an argument has the wrong type.
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
    return sharpness_aware(
        base,
        sam_direction(),
        rho,
        mask=mask,
        axis_name=axis_name,
    )


def asam(
    base: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.5,
    eta: jax.typing.ArrayLike = 0.01,
    *,
    mask: Mask | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    weights: Callable[[tuple, jax.Array], bool] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adaptive SAM: the ball to climb in stretches with the weights.

    .. math::
        p = \phi + \rho \frac{T^2 g}{\lVert T g \rVert_2}, \qquad
        \phi \leftarrow \phi + A(\nabla L_d(p), \phi)

    with g the clean gradient, T = |φ| + η on weights and 1 on biases.

    Args:
      base: the base optimizer A, any Optax optimizer.
      rho: ρ ≥ 0, the radius of one ascent step, relative to the size of the weights; a
        scalar or a schedule that counts steps.
      eta: η ≥ 0, in units of the parameters; keeps coordinates at zero movable.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).
      weights: tells weights from biases, see `asam_direction`.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose `update(grads, state,
      params, grad_fn=...)` takes trees of the shapes of `params`, see
      `sharpness_aware`. A step costs 2 gradients.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if a number is negative or not finite, where that is known statically.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(p["kernel"] ** 2)
      >>> optimizer = lb.asam(optax.sgd(0.25), rho=0.5)
      >>> params = {"kernel": jnp.array([3.0, -4.0])}
      >>> state = optimizer.init(params)
      >>> grads = jax.grad(loss)(params)
      >>> updates, state = optimizer.update(
      ...     grads, state, params, grad_fn=lambda p, i: jax.grad(loss)(p)
      ... )
      >>> params = optax.apply_updates(params, updates)
      >>> print(jnp.array_str(params["kernel"], precision=3))
      [ 1.131 -1.126]

    References:
      Kwon et al., `ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant
      Learning of Deep Neural Networks <https://arxiv.org/abs/2102.11600>`_, 2021,
      Algorithm 1
    """
    return sharpness_aware(
        base,
        asam_direction(eta, weights=weights),
        rho,
        mask=mask,
        axis_name=axis_name,
    )


def multistep_sam(
    base: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.05,
    k: int = 2,
    *,
    average: bool = False,
    mask: Mask | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM with k ascent steps from each minibatch and one descent step.

    .. math::
        p_i = p_{i-1} + \rho \frac{g_{i-1}}{\lVert g_{i-1} \rVert_2}, \qquad
        g_i = \nabla L_d(p_i), \qquad
        \phi \leftarrow \phi + A(g_k, \phi)

    for i = 1, ..., k, from :math:`p_0 = \phi`; or :math:`A(\frac1k\sum_i g_i, \phi)`.

    Args:
      base: the base optimizer A, any Optax optimizer.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      k: number of ascent steps, which lead up to k ρ away; with k = 0 this is the base
        optimizer.
      average: whether the base optimizer gets the mean of the k gradients instead of
        the last one.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose `update(grads, state,
      params, grad_fn=...)` takes trees of the shapes of `params`, see
      `sharpness_aware`. A step costs k + 1 gradients.

    Raises:
      TypeError: if an argument has the wrong type.
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
    return sharpness_aware(
        base,
        sam_direction(),
        rho,
        k,
        descent=_descent(average),
        mask=mask,
        axis_name=axis_name,
    )


def multistep_asam(
    base: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.5,
    k: int = 2,
    eta: jax.typing.ArrayLike = 0.01,
    *,
    average: bool = False,
    mask: Mask | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    weights: Callable[[tuple, jax.Array], bool] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ASAM with k ascent steps from each minibatch and one descent step.

    .. math::
        p_i = p_{i-1} + \rho \frac{T^2 g_{i-1}}{\lVert T g_{i-1} \rVert_2}, \qquad
        g_i = \nabla L_d(p_i), \qquad
        \phi \leftarrow \phi + A(g_k, \phi)

    for i = 1, ..., k, from :math:`p_0 = \phi`, with T = :math:`|p_{i-1}|` + η on
    weights and 1 on biases; or :math:`A(\frac1k\sum_i g_i, \phi)`.

    Args:
      base: the base optimizer A, any Optax optimizer.
      rho: ρ ≥ 0, the radius of one ascent step, relative to the size of the weights; a
        scalar or a schedule that counts steps.
      k: number of ascent steps, which lead up to k ρ away; with k = 0 this is the base
        optimizer.
      eta: η ≥ 0, in units of the parameters; keeps coordinates at zero movable.
      average: whether the base optimizer gets the mean of the k gradients instead of
        the last one.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).
      weights: tells weights from biases, see `asam_direction`.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose `update(grads, state,
      params, grad_fn=...)` takes trees of the shapes of `params`, see
      `sharpness_aware`. A step costs k + 1 gradients.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if a number is negative or not finite, where that is known statically.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(p["kernel"] ** 2)
      >>> optimizer = lb.multistep_asam(optax.sgd(0.25), rho=0.5, k=2)
      >>> params = {"kernel": jnp.array([3.0, -4.0])}
      >>> state = optimizer.init(params)
      >>> grads = jax.grad(loss)(params)
      >>> updates, state = optimizer.update(
      ...     grads, state, params, grad_fn=lambda p, i: jax.grad(loss)(p)
      ... )
      >>> params = optax.apply_updates(params, updates)
      >>> print(jnp.array_str(params["kernel"], precision=3))
      [0.765 0.199]

    References:
      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
      Generalization <https://arxiv.org/abs/2010.01412>`_, 2021; Kim et al.,
      `Exploring the Effect of Multi-step Ascent in Sharpness-Aware Minimization
      <https://arxiv.org/abs/2302.10181>`_, 2023, for `average`
    """
    return sharpness_aware(
        base,
        asam_direction(eta, weights=weights),
        rho,
        k,
        descent=_descent(average),
        mask=mask,
        axis_name=axis_name,
    )


def lookbehind_sam(
    base: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.05,
    k: int = 2,
    alpha: ScalarOrSchedule | _alpha.AdaptiveAlpha = 0.5,
    *,
    reuse_gradients: bool = True,
    mask: Mask | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
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
      k: number of ascent steps, which lead up to k ρ away; with k = 0 this is the base
        optimizer.
      alpha: α ≥ 0, the step of the slow weights; a scalar, a schedule that counts
        steps, or `adaptive_alpha()`. One step moves them by about α k times what the
        base optimizer alone would, so keep α k (or the learning rate) in mind.
      reuse_gradients: whether a gradient serves both to descend and, next, to ascend.
        If not, inner step i takes both from `grad_fn(·, i)`, as the paper does where
        it switches the minibatch inside the loop: 2k gradients a step.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose `update(grads, state,
      params, grad_fn=...)` takes trees of the shapes of `params`, see
      `sharpness_aware`. A step costs k + 1 gradients.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if a number is negative or not finite, where that is known statically.

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
    return sharpness_aware(
        base,
        sam_direction(),
        rho,
        k,
        alpha,
        descent="every",
        reuse_gradients=reuse_gradients,
        mask=mask,
        axis_name=axis_name,
    )


def lookbehind_asam(
    base: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.5,
    k: int = 2,
    alpha: ScalarOrSchedule | _alpha.AdaptiveAlpha = 0.5,
    eta: jax.typing.ArrayLike = 0.01,
    *,
    reuse_gradients: bool = True,
    mask: Mask | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    weights: Callable[[tuple, jax.Array], bool] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lookbehind over ASAM: k steps back, 1 step forward.

    .. math::
        p_i = p_{i-1} + \rho \frac{T^2 g_{i-1}}{\lVert T g_{i-1} \rVert_2}, \qquad
        g_i = \nabla L_d(p_i), \qquad
        f_i = f_{i-1} + A(g_i, f_{i-1})

    for i = 1, ..., k, from :math:`p_0 = f_0 = \phi`, with T = :math:`|p_{i-1}|` + η on
    weights and 1 on biases; then the slow weights, which are the parameters, follow:
    :math:`\phi \leftarrow \phi + \alpha (f_k - \phi)`. With k = 1 and α = 1 this is
    ASAM.

    Args:
      base: the base optimizer A, any Optax optimizer. Its momentum and moments advance
        k times a step, weight decay acts on the fast weights, and schedules inside it
        tick once a step.
      rho: ρ ≥ 0, the radius of one ascent step, relative to the size of the weights; a
        scalar or a schedule that counts steps.
      k: number of ascent steps, which lead up to k ρ away; with k = 0 this is the base
        optimizer.
      alpha: α ≥ 0, the step of the slow weights; a scalar, a schedule that counts
        steps, or `adaptive_alpha()`. One step moves them by about α k times what the
        base optimizer alone would, so keep α k (or the learning rate) in mind.
      eta: η ≥ 0, in units of the parameters; keeps coordinates at zero movable.
      reuse_gradients: whether a gradient serves both to descend and, next, to ascend.
        If not, inner step i takes both from `grad_fn(·, i)`, as the paper does where
        it switches the minibatch inside the loop: 2k gradients a step.
      mask: the leaves to perturb, a tree (or prefix) of booleans or a function of the
        parameters; all by default.
      axis_name: a named axis over which descent gradients are averaged while ascent
        gradients stay local (m-SAM).
      weights: tells weights from biases, see `asam_direction`.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` whose `update(grads, state,
      params, grad_fn=...)` takes trees of the shapes of `params`, see
      `sharpness_aware`. A step costs k + 1 gradients.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if a number is negative or not finite, where that is known statically.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(p["kernel"] ** 2)
      >>> optimizer = lb.lookbehind_asam(optax.sgd(0.25), rho=0.5, k=2, alpha=0.5)
      >>> params = {"kernel": jnp.array([3.0, -4.0])}
      >>> state = optimizer.init(params)
      >>> grads = jax.grad(loss)(params)
      >>> updates, state = optimizer.update(
      ...     grads, state, params, grad_fn=lambda p, i: jax.grad(loss)(p)
      ... )
      >>> params = optax.apply_updates(params, updates)
      >>> print(jnp.array_str(params["kernel"], precision=3))
      [ 0.948 -0.464]

    References:
      Mordido et al., `Lookbehind-SAM: k steps back, 1 step forward
      <https://arxiv.org/abs/2307.16704>`_, 2024, Algorithm 1
    """
    return sharpness_aware(
        base,
        asam_direction(eta, weights=weights),
        rho,
        k,
        alpha,
        descent="every",
        reuse_gradients=reuse_gradients,
        mask=mask,
        axis_name=axis_name,
    )


def _descent(average):
    _checks.check_boolean("average", average)
    return "mean" if average else "last"
