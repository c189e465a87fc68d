"""Algorithm 1: a climb along a direction, and a descent with its gradients."""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _axis
from lookbehind_optax import _clocks
from lookbehind_optax import _descents
from lookbehind_optax import _loop
from lookbehind_optax import _loss
from lookbehind_optax import _numbers
from lookbehind_optax import _params
from lookbehind_optax import _precision
from lookbehind_optax import _transformations
from lookbehind_optax import _trees


class SharpnessAwareState(NamedTuple):
    """State of every sharpness-aware optimizer, whatever its k, ρ, α or descent.

    Training can therefore switch from one of them to another over the same base
    optimizer and keep the state: from SGD (k = 0) to SAM, from SAM to Lookbehind.

    Attributes:
      count: steps (minibatches) taken; int32 scalar.
      base_state: state of the base optimizer.
      direction_state: state of the direction; it has no leaves for SAM and ASAM.
      alpha: α of the last step, averaged over tensors if each has its own; 1 if
        nothing was interpolated; float32 scalar.
      grad_norm: norm of the last clean gradient; if `axis_name` is set, the mean of
        the norms of the local gradients; float32 scalar.
      perturbed_loss: loss at the last perturbed point if it was computed with the
        gradient (by `make_step` or from `value_fn`), else the lowest float32, −3.4e38;
        if `axis_name` is set, its mean over the axis; float32 scalar.

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


class _Climb(NamedTuple):
    p: optax.Params  # the perturbed weights
    g: optax.Updates  # the latest gradient, along which the next ascent goes
    direction_state: optax.OptState
    loss: jax.Array  # at p
    used: Any  # what the descent carries


def _algorithm_1(step, loss, direction, state, descent, rho, reuse_gradients):
    """Algorithm 1: α (f − φ), α, the state of A, and the end of the climb."""

    def ascend(i, at):  # p ← p + ρ D(g, p)
        d, state = direction.update(at.g, at.direction_state, at.p, step=step, i=i)
        _params.check_like_params("the direction's update", d, at.p)
        return at._replace(p=_add(at.p, rho, d), direction_state=state)

    def look(i, n, at):  # g ← ∇L_d(p), which is evaluation number n of the step
        value, g = loss.evaluate(at.p, i, n)
        value = at.loss if value is None else value.astype(jnp.float32)
        # `now`: mixing the descent into the backward pass would fragment memory.
        return at._replace(g=_loop.now(_precision.cast_like(g, step.grads)), loss=value)

    def descend(i, at):  # of Lookbehind: u, A ← A.update(g, A, f); f ← f + u
        used = descent.after_ascent(step, at.used, i, at.g)
        return at._replace(used=_loop.now(used))

    def inner_step(i, at):
        n = i + 1 if reuse_gradients else 2 * i + 1
        return descend(i, look(i, n, ascend(i, at)))

    def inner_step_with_own_gradients(i, at):
        return inner_step(i, look(i, 2 * i, at))

    phi, k = step.params, step.k
    p, g = _axis.local(loss.axis_name, (phi, loss.grads))
    start = _Climb(p, g, state, loss.value_at_start(g), descent.start(step))
    if reuse_gradients:
        end = _loop.repeat(inner_step, start, 0, k)
    else:  # the incoming gradient is the first of the 2k
        end = _loop.repeat(inner_step, start, 0, min(k, 1))
        end = _loop.repeat(inner_step_with_own_gradients, end, 1, k)
    moved, alpha, A = descent.finish(step, end.used, end.g)  # f − φ
    _params.check_like_params("the descent's displacement", moved, phi)
    return _scale(alpha, moved), alpha, A, end  # φ ← φ + α (f − φ) is the caller's


def sharpness_aware(
    base: optax.GradientTransformation,
    direction: optax.GradientTransformation,
    descent: _descents.Descent,
    rho: _numbers.ScalarOrSchedule = 0.05,
    k: int = 1,
    *,
    reuse_gradients: bool = True,
    mask: _params.Mask | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Takes k ascent steps on each minibatch and descends with their gradients.

    .. math::
        p_0 = \phi, \qquad
        p_i = p_{i-1} + \rho\, D(g_{i-1}, p_{i-1}), \qquad g_i = \nabla L_d(p_i)

    for i = 1, ..., k, where :math:`g_0 = \nabla L_d(\phi)` is the incoming gradient.
    With these gradients, the descent takes one or more steps of the base optimizer A
    from φ to the fast weights f, and sets a share α by which the slow weights follow:
    :math:`\phi \leftarrow \phi + \alpha (f - \phi)`.

    All sharpness-aware optimizers in this library are built on this transformation. Any
    direction works with any descent, and you can write your own of either. The
    parameters after an update are the slow weights: evaluate those.

    Args:
      base: the base optimizer A, any Optax optimizer. Its momentum and moments advance
        with every call; schedules inside it tick once a step.
      direction: D, an Optax transformation whose `update(g, state, p)` returns an
        ascent direction of unit radius, such as `sam_direction()`. If it takes extra
        arguments, it gets `step`, a :class:`Step`, and `i`, the index of the ascent
        step.
      descent: a :class:`Descent`, which determines how the gradients are used:
        `last_descent()`, `mean_descent()`, `every_descent()`,
        `surrogate_gap_descent()`, `weighted_descent()`.
      rho: ρ ≥ 0, the radius of one ascent step, in units of the parameters; a scalar
        or a schedule that counts steps.
      k: number of ascent steps. With k = 0, this is the base optimizer.
      reuse_gradients: whether each descent gradient is also the next ascent gradient,
        for k + 1 gradient evaluations a step in all. Otherwise inner step i takes both
        of its gradients from `grad_fn(·, i)`, for 2k in all, of which the incoming
        gradient is the first. Unless the minibatch is switched, the results are equal.
      mask: which leaves are perturbed and enter the norm: a tree of booleans with the
        structure of the parameters or of a prefix of it, or a function from parameters
        to such a tree. All leaves by default.
      axis_name: a named axis (of `jax.vmap` or `jax.shard_map`), or several. Ascent
        gradients stay local to the axis member; descent gradients are averaged over
        the axis (m-SAM). The incoming gradients must be local.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs`. Its `update(grads, state,
      params, *, grad_fn=None, value_fn=None, **extra_args)` takes the clean gradient at
      `params`, and either `grad_fn(params, i)`, the gradient at other parameters for
      inner step i = 0, ..., k − 1 (a traced int32: `batches[i]` switches the
      minibatch), or `value_fn(params)`, a loss whose gradient is taken (and, for
      complex parameters, conjugated as Optax expects). Other extra arguments go to the
      base optimizer. Updates have the dtypes of the parameters. Call it inside
      `jax.jit`: outside, each call compiles the climb again.

    Raises:
      TypeError: if an argument has the wrong type; `update` and `init` raise it for
        parameters that aren't floating-point or complex arrays.
      ValueError: if a number is negative or not finite, where that is known
        statically; `init` and `update` raise it for a mask that doesn't match or that
        perturbs nothing; `update` raises it if `params` is missing, if neither
        `grad_fn` nor `value_fn` is given, for the state of another base, and for trees
        that don't match, such as a direction or displacement of another shape.

    Example:
      Ascent along the sign of the gradient, the worst case inside a cube:

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss = lambda p: jnp.sum(p**2)
      >>> optimizer = lb.sharpness_aware(
      ...     optax.sgd(0.1), optax.scale_by_sign(), lb.mean_descent(), rho=0.5, k=2
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
    base = _transformations.accept("base", base)
    direction = _transformations.accept("direction", direction, "sam_direction()")
    if not isinstance(descent, _descents.Descent):
        raise TypeError(
            "descent must be a Descent, such as last_descent(); "
            f"got {_numbers.describe(descent)}."
        )
    _numbers.check_number("rho", rho)
    _numbers.check_count("k", k, minimum=0)
    # Without an ascent step, the last gradient is the clean one.
    descent = descent if k > 0 else _descents.last_descent()

    def perturbing(params):  # always a partition, so that masks share a state
        labels = jax.tree.map(
            lambda keep: "perturbed" if keep else "fixed", _params.masked(mask, params)
        )
        directions: Any = {"perturbed": direction, "fixed": optax.set_to_zero()}
        return optax.partition(directions, lambda _: labels)  # labels may be callable

    def init_fn(params):
        _params.check_params(params)
        base_state = base.init(params)
        if k > 0 and _trees.nodes(base_state, SharpnessAwareState):
            raise TypeError(
                "base must not be sharpness-aware itself: the gradient function isn't "
                "passed on to the base."
            )
        return SharpnessAwareState(
            count=jnp.zeros([], jnp.int32),
            base_state=base_state,
            direction_state=perturbing(params).init(params),
            alpha=jnp.ones([], jnp.float32),
            grad_norm=jnp.zeros([], jnp.float32),
            perturbed_loss=jnp.array(_loss.UNKNOWN, jnp.float32),
        )

    def update_fn(
        updates, state, params=None, *, grad_fn=None, value_fn=None, **extra_args
    ):
        grads = updates  # Optax's name for the input, here the clean gradient
        _params.check_params(params)
        _params.check_like_params("grads", grads, params)
        ascent = perturbing(params)
        _check_state(state, base, ascent, params)
        loss = _loss.of(grad_fn, value_fn, grads, params, k, axis_name)
        if k == 0:  # without a climb, these go to the base optimizer
            functions = {"grad_fn": grad_fn, "value_fn": value_fn}
            extra_args |= {n: f for n, f in functions.items() if f is not None}

        def base_update(updates, base_state, params):  # g, A and f of Algorithm 1
            g = _axis.mean(axis_name, updates)
            A = _clocks.rewind(base_state, state.base_state)
            u, new = base.update(g, A, params, **extra_args)
            # Gradients wider than the state would widen it, which a loop can't allow.
            return _precision.cast_like(u, params), _precision.cast_like(new, A)

        step = _descents.Step(
            count=state.count,
            k=k,
            params=params,
            grads=loss.grads,
            base=base._replace(update=base_update),
            base_state=state.base_state,
            mean=lambda tree: _axis.mean(axis_name, tree),
        )
        rho_now = _numbers.at_step("rho", rho, state.count, params)
        updates, alpha, base_state, end = _algorithm_1(
            step,
            loss,
            ascent,
            state.direction_state,
            descent,
            rho_now,
            reuse_gradients,
        )
        grad_norm = _axis.mean(axis_name, _precision.norm(loss.grads))
        return updates, SharpnessAwareState(
            count=optax.safe_increment(state.count),
            base_state=base_state,
            direction_state=end.direction_state,
            alpha=_mean(alpha, params),
            grad_norm=grad_norm.astype(jnp.float32),
            perturbed_loss=_axis.mean(axis_name, end.loss),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _add(p, rho, d):
    """p + ρ d, rounded once."""

    def add(p, d):
        wide_p, wide_d = _precision.widen((p, d))
        return (wide_p + rho.astype(wide_d.dtype) * wide_d).astype(p.dtype)

    return jax.tree.map(add, p, d)


def _scale(alpha, moved):
    """α (f − φ), the update of the slow weights, rounded once."""
    alphas = jax.tree.broadcast(alpha, moved)
    wide = _precision.widen(moved)
    wide = jax.tree.map(lambda a, m: jnp.asarray(a, m.dtype) * m, alphas, wide)
    return _precision.cast_like(wide, moved)


def _mean(alpha, params):
    """The mean of α over the leaves, a float32 scalar to report in the state."""
    leaves = jax.tree.leaves(jax.tree.broadcast(alpha, params))
    leaves = [jnp.asarray(a, jnp.float32) for a in leaves]
    return jnp.mean(jnp.stack(leaves)) if leaves else jnp.ones([], jnp.float32)


def _check_state(state, base, direction, params):
    if not isinstance(state, SharpnessAwareState):
        raise TypeError(
            "state must be a SharpnessAwareState, from the init of a sharpness-aware "
            f"optimizer; got {type(state)}. (To continue from the state of its base "
            "optimizer, pass optimizer.init(params)._replace(base_state=...).)"
        )
    for name, made_by in (("base", base), ("direction", direction)):
        got = jax.tree.structure(getattr(state, f"{name}_state"))
        wanted = jax.tree.structure(jax.eval_shape(made_by.init, params))
        # A stateless direction passes on the state of the previous phase's direction.
        if got != wanted and (name == "base" or wanted.num_leaves):
            raise ValueError(
                f"state must come from an optimizer over the same {name}; its "
                f"{name}_state has the structure\n  {got}\ninstead of\n  {wanted}\n"
                f"(For another {name}, start from optimizer.init(params), or pass "
                f"state._replace({name}_state=optimizer.init(params).{name}_state).)"
            )
