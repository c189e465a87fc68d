"""The climb: every sharpness-aware member is one way of using the gradients on it."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _alpha
from lookbehind_optax import _axis
from lookbehind_optax import _checks
from lookbehind_optax import _clocks
from lookbehind_optax import _loop
from lookbehind_optax import _oracle
from lookbehind_optax import _precision

ScalarOrSchedule = jax.typing.ArrayLike | optax.Schedule
Mask = Any  # a tree of booleans, or a function from params to one


class SharpnessAwareState(NamedTuple):
    """State of every sharpness-aware member, whatever its k, ρ, α or direction.

    Training can therefore go on from the state of one member with another over the
    same base optimizer: from SGD (k = 0) to SAM, from SAM to Lookbehind.

    Attributes:
      count: steps (minibatches) taken; int32 scalar.
      base_state: state of the base optimizer.
      direction_state: state of the direction; without leaves for SAM and ASAM.
      alpha: α of the last step, averaged over tensors where there is one for each; 1
        where nothing was interpolated; float32 scalar.
      grad_norm: norm of the last clean gradient; where `axis_name` is set, the mean of
        the norms of the local ones; float32 scalar.
      perturbed_loss: loss at the last perturbed point, where it came with the gradient
        (from `make_step` or `value_fn`), else −∞; where `axis_name` is set, its mean
        over the axis; float32 scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> optimizer = optax.chain(lb.sam(optax.sgd(0.1)), optax.scale(0.5))
      >>> params = grads = jnp.array([3.0, 4.0])
      >>> _, state = optimizer.update(
      ...     grads, optimizer.init(params), params, grad_fn=lambda p, i: p
      ... )
      >>> print(optax.tree.get(state, "SharpnessAwareState").grad_norm)
      5.0
    """

    count: jax.typing.ArrayLike
    base_state: optax.OptState
    direction_state: optax.OptState
    alpha: jax.Array
    grad_norm: jax.Array
    perturbed_loss: jax.Array


class _Ascent(NamedTuple):
    p: optax.Params  # the perturbed weights
    g: optax.Updates  # the gradient last met, along which the next turn ascends
    direction_state: optax.OptState
    loss: jax.Array  # at p


class _Fast(NamedTuple):
    # The fast weights are f = φ + moved. Carrying f − φ in place of f loses none of it
    # to rounding where it is small beside φ, leaves α (f − φ) exact for α = 1, and
    # never materialises f for a base optimizer that doesn't look at the parameters.
    moved: optax.Updates
    first: optax.Updates | None  # the first update, where α depends on it
    base_state: optax.OptState


def sharpness_aware(
    base: optax.GradientTransformation,
    direction: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.05,
    k: int = 1,
    alpha: ScalarOrSchedule | _alpha.AdaptiveAlpha = 1.0,
    *,
    descent: str = "last",
    reuse_gradients: bool = True,
    mask: Mask | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Climbs k times from each minibatch and descends with what it met on the way.

    .. math::
        p_0 = f_0 = \phi, \qquad
        p_i = p_{i-1} + \rho\, D(g_{i-1}, p_{i-1}), \qquad g_i = \nabla L_d(p_i)

    for i = 1, ..., k, where :math:`g_0 = \nabla L_d(\phi)` is the incoming gradient.
    The base optimizer A moves the fast weights,

    .. math::
        f_i = f_{i-1} + A(g_i, f_{i-1})                  &\quad\text{every} \\
        f   = \phi + A(g_k, \phi)                        &\quad\text{last} \\
        f   = \phi + A(\tfrac1k \textstyle\sum_i g_i, \phi)  &\quad\text{mean}

    and the slow weights follow: :math:`\phi \leftarrow \phi + \alpha (f - \phi)`.

    This is the transformation beneath `sam`, `asam`, `multistep_sam`,
    `multistep_asam`, `lookbehind_sam` and `lookbehind_asam`; use it with a direction
    of your own. The parameters after an update are the slow weights: evaluate them.

    Args:
      base: the base optimizer A, any Optax optimizer. Its momentum and moments advance
        with every call; schedules inside it tick once a step.
      direction: an Optax transformation whose `update(g, state, p)` returns an ascent
        direction of unit radius D, such as `sam_direction()`.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      k: number of ascent steps. With k = 0, this is the base optimizer.
      alpha: α ≥ 0, the step of the slow weights as a share of f − φ; a scalar, a
        schedule that counts steps, or `adaptive_alpha()`. With k = 0 there is none.
      descent: the gradients that the base optimizer uses: "last" and "mean" make one
        step with it, "every" makes k.
      reuse_gradients: whether the gradient that has just been descended along is the
        next ascent gradient: k + 1 gradients a step in all. Otherwise inner step i
        takes both of its gradients from `grad_fn(·, i)`, 2k in all, the incoming one
        being the first. On the same minibatch both give the same numbers.
      mask: which leaves are perturbed and enter the norm: a tree of booleans with the
        structure of the parameters or of a prefix of it, or a function from parameters
        to such a tree. All leaves by default.
      axis_name: a named axis (of `jax.vmap` or `jax.shard_map`), or several. Ascent
        gradients stay local to the axis member; descent gradients are averaged over
        the axis (m-SAM). The incoming gradients must be local ones.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`. Its `update(grads, state,
      params, *, grad_fn=None, value_fn=None, **extra_args)` takes the clean gradient at
      `params`, and either `grad_fn(params, i)`, the gradient at other parameters for
      inner step i = 0, ..., k − 1 (a traced int32: `batches[i]` switches the
      minibatch), or `value_fn(params)`, a loss whose gradient is taken (and
      conjugated, for complex parameters, as Optax wants gradients to be). Other extra
      arguments go to the base optimizer. Updates have the dtypes of the parameters.

    Raises:
      TypeError: if an argument has the wrong type; `update` and `init` raise it for
        parameters that are no floating-point or complex arrays.
      ValueError: if a number is negative or not finite, where that is known
        statically; `init` and `update` raise it for a mask that doesn't match or that
        perturbs nothing; `update` when `params` is missing, when neither `grad_fn` nor
        `value_fn` is there, and for trees that don't match.

    Example:
      Ascent along the sign of the gradient, the worst case inside a cube:

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(p**2)
      >>> optimizer = lb.sharpness_aware(
      ...     optax.sgd(0.1), optax.scale_by_sign(), rho=0.5, k=2, descent="mean"
      ... )
      >>> params = jnp.array([1.0, -2.0])
      >>> state = optimizer.init(params)
      >>> grads = jax.grad(loss)(params)
      >>> updates, state = optimizer.update(grads, state, params, value_fn=loss)
      >>> print(optax.apply_updates(params, updates))  # gradients of ±3, 5 and ±4, 6
      [ 0.65 -1.45]

    References:
      Mordido et al., `Lookbehind-SAM: k steps back, 1 step forward
      <https://arxiv.org/abs/2307.16704>`_, 2024, Algorithm 1
    """
    _checks.check_transformation("base", base, "optax.sgd(0.1)")
    _checks.check_transformation("direction", direction, "sam_direction()")
    _checks.check_number("rho", rho, schedule=True)
    _checks.check_count("k", k, minimum=0)
    if alpha is _alpha.adaptive_alpha:
        raise TypeError("alpha must be adaptive_alpha(), the function called.")
    if not isinstance(alpha, _alpha.AdaptiveAlpha):
        _checks.check_number("alpha", alpha, schedule=True)
    _checks.check_choice("descent", descent, ("last", "mean", "every"))
    _checks.check_boolean("reuse_gradients", reuse_gradients)
    _checks.check_axis_name(axis_name)
    base = optax.with_extra_args_support(base)
    # Where the base optimizer moves only once, the angle is zero, and α = 1.
    is_adaptive = isinstance(alpha, _alpha.AdaptiveAlpha)
    per_tensor = isinstance(alpha, _alpha.AdaptiveAlpha) and alpha.per_tensor
    needs_angle = is_adaptive and descent == "every" and k > 1

    def init_fn(params):
        _checks.check_params(params)
        perturbed = _select(params, _checks.check_mask(mask, params))
        base_state = base.init(params)
        if k > 0 and states(base_state):
            raise TypeError(
                "base must not be sharpness-aware itself: the gradient function has "
                "been used up when its turn comes."
            )
        return SharpnessAwareState(
            count=jnp.zeros([], jnp.int32),
            base_state=base_state,
            direction_state=direction.init(perturbed),
            alpha=jnp.ones([], jnp.float32),
            grad_norm=jnp.zeros([], jnp.float32),
            perturbed_loss=jnp.array(-jnp.inf, jnp.float32),
        )

    def update_fn(
        updates,
        state,
        params=None,
        *,
        grad_fn=None,
        value_fn=None,
        oracle=None,
        **extra_args,
    ):
        _checks.check_state(state, SharpnessAwareState)
        _checks.check_params(params)
        if k > 0:
            _checks.check_whole(params)
        _checks.check_like_params("grads", updates, params)
        grads = updates  # Optax's name for what comes in; here the clean gradient
        functions = {"grad_fn": grad_fn, "value_fn": value_fn}
        functions = {name: fn for name, fn in functions.items() if fn is not None}
        for name, fn in functions.items():
            _checks.check_function(name, fn)
        if oracle is not None:
            _oracle.check(oracle, k, axis_name)
            functions["oracle"] = oracle
        if k == 0:  # without a climb, they are for the base optimizer
            extra_args |= functions
        elif not functions:
            raise ValueError(
                "update needs gradients at perturbed parameters: pass "
                "grad_fn=lambda params, i: ... or a loss as value_fn=lambda params: ..."
            )

        value_and_grad = _oracle.value_and_gradient(oracle, grad_fn, value_fn, grads)
        perturbed = _checks.check_mask(mask, params)
        radius = _at_step("rho", rho, state.count, params)

        def ascend(ascent):  # p ← p + ρ D(g, p)
            d, direction_state = direction.update(
                _select(ascent.g, perturbed),
                ascent.direction_state,
                _select(ascent.p, perturbed),
            )
            p = _move(ascent.p, radius, d)
            return ascent._replace(p=p, direction_state=direction_state)

        def look(i, ascent):  # g ← ∇L(p)
            value, g = value_and_grad(ascent.p, i)
            loss = ascent.loss if value is None else value.astype(jnp.float32)
            # `now`: the descent, mixed into the backward pass, would fragment memory.
            return ascent._replace(g=_loop.now(g), loss=loss)

        def descend(i, fast, g):  # u, A ← A.update(g, A, f); then f ← f + u
            u, base_state = base.update(
                _axis.mean(axis_name, g),
                _clocks.rewind(fast.base_state, state.base_state),
                optax.tree.add(params, fast.moved),
                **extra_args,
            )
            u = _precision.cast_like(u, params)
            # Gradients wider than the state would widen it, and a loop can't have that.
            base_state = _precision.cast_like(base_state, fast.base_state)
            first = fast.first
            if needs_angle:
                first = jax.tree.map(lambda u, v: jnp.where(i == 0, u, v), u, first)
            return _Fast(optax.tree.add(fast.moved, u), first, base_state)

        def inner_step(i, carry):
            ascent, fast, total = carry
            ascent = look(i, ascend(ascent))
            if descent == "every":
                fast = descend(i, fast, ascent.g)
            if descent == "mean":
                total = optax.tree.add(total, _precision.widen(ascent.g))
            return ascent, *_loop.now((fast, total))

        def inner_step_with_own_gradients(i, carry):
            ascent, fast, total = carry
            return inner_step(i, (look(i, ascent), fast, total))

        _check_local(axis_name, grads)
        p, g = _axis.local(axis_name, (params, grads))
        moved = optax.tree.zeros_like(params)
        carry = (
            _Ascent(p, g, state.direction_state, _no_loss(g)),
            _Fast(moved, moved if needs_angle else None, state.base_state),
            optax.tree.zeros_like(_precision.widen(g)) if descent == "mean" else None,
        )
        if reuse_gradients or k == 0:
            carry = _loop.repeat(inner_step, carry, 0, k)
        else:  # the first of the 2k gradients has come in already
            carry = _loop.repeat(inner_step, carry, 0, 1)
            carry = _loop.repeat(inner_step_with_own_gradients, carry, 1, k)
        ascent, fast, total = carry

        if k == 0 or descent == "last":
            fast = descend(0, fast, ascent.g)
        elif descent == "mean":
            mean = jax.tree.map(lambda t: t / k, total)
            fast = descend(0, fast, _precision.cast_like(mean, grads))

        if needs_angle:
            alphas = _alpha.aligned(fast.first, fast.moved, per_tensor=per_tensor)
        else:
            step = 1.0 if is_adaptive or k == 0 else alpha
            step = _at_step("alpha", step, state.count, params)
            alphas = jax.tree.map(lambda _: step, params)
        return _interpolate(alphas, fast.moved), SharpnessAwareState(
            count=optax.safe_increment(state.count),
            base_state=fast.base_state,
            direction_state=ascent.direction_state,
            alpha=_alpha.mean(alphas),
            grad_norm=_axis.mean(axis_name, _precision.norm(grads)).astype(jnp.float32),
            perturbed_loss=_axis.mean(axis_name, ascent.loss),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def states(opt_state) -> list[SharpnessAwareState]:
    """The states of sharpness-aware members anywhere in `opt_state`."""

    def is_ours(node):
        return isinstance(node, SharpnessAwareState)

    nodes = jax.tree.leaves(opt_state, is_leaf=is_ours)
    return [node for node in nodes if is_ours(node)]


def _at_step(name, scalar_or_schedule, count, params):
    scalar = scalar_or_schedule
    if callable(scalar):
        scalar = scalar(count)
        _checks.check_scalar(name, scalar)
    return jnp.asarray(scalar, _precision.wide_dtype(params))


def _select(tree, perturbed):
    """The tree as directions see it: a childless node for each unperturbed leaf."""
    return jax.tree.map(
        lambda keep, x: x if keep else optax.MaskedNode(), perturbed, tree
    )


def _move(p, radius, d):
    """p + radius · d, rounded once; leaves that the direction didn't see stay."""

    def is_unperturbed(node):
        return isinstance(node, optax.MaskedNode)

    def move(d, p):
        if is_unperturbed(d):
            return p
        wide_p, wide_d = _precision.widen((p, d))
        return (wide_p + radius.astype(wide_d.dtype) * wide_d).astype(p.dtype)

    return jax.tree.map(move, d, p, is_leaf=is_unperturbed)


def _interpolate(alphas, moved):
    """α (f − φ), the update of the slow weights."""
    wide = jax.tree.map(
        lambda a, m: a.astype(m.dtype) * m, alphas, _precision.widen(moved)
    )
    return _precision.cast_like(wide, moved)


def _no_loss(g):
    """−∞, varying along the axes of a `shard_map` along which the gradient varies."""
    leaf = jax.tree.leaves([g, jnp.zeros([])])[0]
    return jax.lax.full_like(leaf, -jnp.inf, jnp.float32, shape=())


def _check_local(axis_name, grads):
    if axis_name is None:
        return
    leaves = jax.tree.leaves(grads)
    types = [
        [jax.typeof(x) for x in xs] for xs in (leaves, _axis.local(axis_name, leaves))
    ]
    if leaves and all(a != b for a, b in zip(*types, strict=True)):
        raise ValueError(
            f"grads must be local to the members of the axis {axis_name!r}, but they "
            "are the same on all of them, as if summed already: inside jax.shard_map "
            "take the gradient at jax.lax.pcast(params, axis_name, to='varying')."
        )
