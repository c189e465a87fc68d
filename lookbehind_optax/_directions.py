"""Directions of ascent: gradient in, step of unit radius out.

A direction is an Optax transformation. Its `update(g, state, p, step=..., i=...)` gets
the ascent gradient g at the current point p of the ascent, and returns an uphill
direction of length one. `step` is the current `Step`, and i the index of the ascent
step. Leaves that a `mask` excludes arrive as `optax.MaskedNode()`, a container without
children, so `jax.tree.map` and norms skip them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _numbers
from lookbehind_optax import _precision

# The official code divides by the norm plus this, so a zero gradient perturbs nothing.
_EPS = 1e-16


def sam_direction() -> optax.GradientTransformation:
    r"""The steepest ascent inside a ball: the gradient over its norm.

    .. math::
        D(g) = \frac{g}{\lVert g \rVert_2 + 10^{-16}}

    with one norm over all perturbed leaves, in float32 or wider.

    Returns:
      A stateless :class:`optax.GradientTransformation`, from gradients to a direction
      of the same shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> direction = lb.sam_direction()
      >>> g = {"w": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
      >>> d, _ = direction.update(g, direction.init(g), g)
      >>> print(d["w"], d["b"])
      [0.6 0. ] [0.8]

    References:
      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
      Generalization <https://arxiv.org/abs/2010.01412>`_, 2021, Equation 2
    """

    def direct(g, p):
        del p
        return _normalized(_precision.widen(g), by=g)

    return optax.stateless(direct)


def asam_direction(
    eta: jax.typing.ArrayLike = 0.01,
    *,
    weights: Callable[[tuple[Any, ...], jax.Array], bool] | None = None,
) -> optax.GradientTransformation:
    r"""The steepest ascent inside a ball that stretches with the weights.

    .. math::
        D(g, p) = \frac{T^2 g}{\lVert T g \rVert_2 + 10^{-16}}, \qquad
        T = \begin{cases} |p| + \eta & \text{on weights} \\
                          1 & \text{on biases} \end{cases}

    elementwise, at the perturbed point p, with one norm over all perturbed leaves.
    The radius is measured after dividing each coordinate by its T.

    Args:
      eta: η ≥ 0, in units of the parameters; lets coordinates at zero move.
      weights: a function that takes a leaf's path (of `jax.tree_util` keys) and the
        leaf, and returns whether it is a weight. By default a leaf is a bias if the
        last name in its path is `b` or ends in `bias`, and a weight otherwise: Flax's
        `kernel`, `scale` and `embedding` are weights, and so is a leaf without a name.

    Returns:
      A stateless :class:`optax.GradientTransformation`, from gradients to a direction
      of the same shapes; `update` needs `params`.

    Raises:
      TypeError: if `eta` isn't a real number.
      ValueError: if `eta` is negative or not finite, where that is known statically.

    Example:
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> direction = lb.asam_direction(eta=0.0)
      >>> p = {"kernel": jnp.array([2.0, 1.0]), "bias": jnp.array([7.0])}
      >>> g = {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([1.0])}
      >>> d, _ = direction.update(g, direction.init(p), p)   # T g = (2, 2) and 1
      >>> print(d["kernel"] * 3, d["bias"] * 3)
      [4. 2.] [1.]

    References:
      Kwon et al., `ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant
      Learning of Deep Neural Networks <https://arxiv.org/abs/2102.11600>`_, 2021
    """
    _numbers.check_number("eta", eta, schedule=False)
    is_weight = _is_weight if weights is None else weights

    def direct(g, p):
        if p is None:
            raise ValueError("params must be passed to the ASAM direction's update.")

        def scale(path, x):
            if not is_weight(path, x):
                return jnp.ones([], x.dtype)
            size = jnp.abs(x)  # real even if x is complex
            return (size + jnp.asarray(eta, size.dtype)).astype(x.dtype)

        g, p = _precision.widen((g, p))
        t = jax.tree_util.tree_map_with_path(scale, p)
        tg = jax.tree.map(lambda t, g: t * g, t, g)
        return _normalized(jax.tree.map(lambda t, tg: t * tg, t, tg), by=tg)

    return optax.stateless(direct)


def friendly_direction(
    sigma: jax.typing.ArrayLike = 1.0, decay: jax.typing.ArrayLike = 0.9
) -> optax.GradientTransformationExtraArgs:
    r"""The steepest ascent along the minibatch-specific part of the gradient.

    .. math::
        D(g) = \frac{g - \sigma m}{\lVert g - \sigma m \rVert_2 + 10^{-16}}, \qquad
        m \leftarrow \lambda m + (1 - \lambda) g_0

    where m, an average of the clean gradients :math:`g_0` of previous steps, replaces
    the gradient of the whole dataset. It starts at zero, so the first step follows the
    gradient, and it is updated once a step, after the climb.

    Args:
      sigma: σ ≥ 0, the share of the average to subtract; 0 gives `sam_direction`.
      decay: 0 ≤ λ < 1, the decay rate of the average.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`, from gradients to a direction of
      the same shapes, for `sharpness_aware`. Its state is m, one copy of the perturbed
      parameters.

    Raises:
      TypeError: if an argument isn't a real number; `update` raises it without the
        extra arguments `step` and `i`, which only `sharpness_aware` passes.
      ValueError: if `sigma` is negative or not finite, or `decay` not in [0, 1), where
        that is known statically.

    Example:
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> friendly_sam = lb.sharpness_aware(
      ...     optax.sgd(0.1), lb.friendly_direction(), lb.last_descent(), rho=0.05
      ... )

    References:
      Li et al., `Friendly Sharpness-Aware Minimization
      <https://arxiv.org/abs/2403.12350>`_, 2024, Algorithm 1
    """
    _numbers.check_number("sigma", sigma, schedule=False)
    _numbers.check_number("decay", decay, schedule=False, below=1)

    def init(params):
        return optax.tree.zeros_like(params)

    def update(updates, state, params=None, *, step=None, i=None, **extra_args):
        if step is None or i is None:
            raise TypeError(
                "friendly_direction's update must be passed step and i, as "
                "sharpness_aware does; a measurement can't."
            )
        g, m = updates, state
        # The clean gradient, averaged over m-SAM's groups, which share m.
        clean = jax.tree.map(
            lambda g, clean: g if isinstance(g, optax.MaskedNode) else clean,
            g,
            step.mean(step.grads),
            is_leaf=lambda x: isinstance(x, optax.MaskedNode),
        )
        is_last = i == step.k - 1

        def follow(m, g):
            wide_m, wide_g = _precision.widen((m, g))
            a = jnp.asarray(decay, wide_m.dtype)
            return jnp.where(
                is_last, (a * wide_m + (1 - a) * wide_g).astype(m.dtype), m
            )

        def special(g, m):
            return g - jnp.asarray(sigma, g.dtype) * m

        uphill = jax.tree.map(special, *_precision.widen((g, m)))
        return _normalized(uphill, by=uphill), jax.tree.map(follow, m, clean)

    return optax.GradientTransformationExtraArgs(init, update)


def random_direction(key: jax.Array) -> optax.GradientTransformation:
    r"""A uniformly random direction, as a control for the other directions.

    .. math::
        D = \frac{\epsilon}{\lVert \epsilon \rVert_2}, \qquad \epsilon \sim N(0, I)

    drawn for each ascent step. The groups of m-SAM share the draw.

    Args:
      key: the PRNG key of the draws, from `jax.random.key`; the direction's state.

    Returns:
      A :class:`optax.GradientTransformation`, from gradients to a direction of the
      same shapes.

    Example:
      >>> import jax
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> control = lb.sharpness_aware(
      ...     optax.sgd(0.1),
      ...     lb.random_direction(jax.random.key(0)),
      ...     lb.last_descent(),
      ...     rho=0.05,
      ... )

    References:
      Andriushchenko & Flammarion, `Towards Understanding Sharpness-Aware Minimization
      <https://arxiv.org/abs/2206.06232>`_, 2022
    """

    def init(params):
        del params
        return jnp.copy(key)  # a state may be donated

    def update(updates, state, params=None):
        key, now = jax.random.split(state)
        noise = optax.tree.random_like(now, _precision.widen(updates))
        return _normalized(noise, by=noise), key

    return optax.GradientTransformation(init, update)


def _normalized(tree, by):
    factor = 1 / (_precision.norm(by) + _EPS)
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), tree)


def _is_weight(path, leaf):
    del leaf
    name = next((name for name in map(_name, reversed(path)) if name), "")
    return not (name == "b" or name.endswith("bias"))


def _name(key):
    """A path entry's name, or None for a position and for a variable's `.value`."""
    match key:
        case jax.tree_util.DictKey(key=str(name)):
            return name
        case jax.tree_util.GetAttrKey(name=name) if name != "value":
            # Flax boxes a variable: the kernel of an NNX layer is at .kernel.value.
            return name
    return None
