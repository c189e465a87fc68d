"""From a loss to a training step, for any Optax optimizer."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _axis
from lookbehind_optax import _checks
from lookbehind_optax import _climb
from lookbehind_optax import _evaluation
from lookbehind_optax import _keys
from lookbehind_optax import _oracle
from lookbehind_optax import _precision


class StepOutput(NamedTuple):
    """What a step saw, with one structure for every optimizer.

    Attributes:
      loss: the loss at the parameters before the step, of the first minibatch where
        the step switches them; float32 scalar (float64 where the loss is).
      aux: what `loss_fn` returned beside the loss in that same clean pass; None
        without `has_aux`.
      grad_norm: norm of the clean gradient; float32 scalar.
      perturbed_loss: loss at the last perturbed point, which is that of `loss` where
        the optimizer doesn't climb; float32 scalar. Less `loss`, it is the sharpness
        that the climb found.
      alpha: α of the step, averaged over tensors where there is one for each; 1 where
        nothing was interpolated; float32 scalar.
      finite: whether all gradients of the step were finite; where they weren't, it
        changed nothing. None without `dynamic_scale`.
      dynamic_scale: the loss scale for the next step; None without one.
    """

    loss: jax.Array
    aux: Any
    grad_norm: jax.Array
    perturbed_loss: jax.Array
    alpha: jax.Array
    finite: jax.Array | None
    dynamic_scale: Any


def make_step(
    loss_fn: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    *,
    has_aux: bool = False,
    switch_minibatches: bool = False,
    micro_batches: int = 1,
    m: int | None = None,
    axis_name: Any = None,
    fresh_keys: bool = False,
) -> Callable[..., tuple[Any, Any, StepOutput]]:
    r"""Makes a training step of a loss and any Optax optimizer.

    .. math::
        g = \nabla L_d(\phi), \qquad
        u, s \leftarrow A(g, s, \phi;\ L_d, \nabla L_d), \qquad
        \phi \leftarrow \phi + u

    The optimizer A gets whatever it may want beyond the gradient: `grad_fn` for
    sharpness-aware members, `value` for `optax.contrib.reduce_on_plateau`, and `value`,
    `grad` and `value_fn` for line searches. The step is pure: jit it, and donate its
    first two arguments.

    In `step(params, opt_state, *args, **kwargs)`, positional arguments are the batch:
    arrays, or trees of them, with examples along the leading axis. What is the same
    for all examples (keys, statistics, temperatures) goes in by keyword. Only
    `switch_minibatches`, `micro_batches` and `m` make this difference.

    Args:
      loss_fn: from `(params, *args, **kwargs)` to the loss, a real scalar. Where the
        batch is split, it must be a mean over examples.
      optimizer: any Optax optimizer.
      has_aux: whether `loss_fn` returns a pair of the loss and anything else, such as
        BatchNorm's new statistics or metrics.
      switch_minibatches: whether the batch carries k minibatches on a further leading
        axis, one for each inner step of a sharpness-aware optimizer. The clean
        gradient is that of minibatch 0. The ascent of inner step i then takes the
        gradient met before it: k + 1 gradients. Or, with `reuse_gradients=False` in
        the optimizer, it takes that of minibatch i: 2k gradients, as in the paper.
      micro_batches: into how many parts each evaluation splits its batch, one after
        the other in memory; n parts take the examples j, j + n, j + 2n, ...
      m: the size of the groups of m-SAM. Each m consecutive examples share a
        perturbation, the descent follows the mean over groups. The optimizer's
        `axis_name` must be the one given here. To an optimizer that doesn't climb, m
        makes no difference.
      axis_name: the axis of the groups; with m, a name for the axis that the step
        makes. Without m, an axis that is there already, of the `jax.shard_map` or
        `jax.vmap` around the step: each of its members is a group.
      fresh_keys: whether each evaluation has PRNG keys of its own: inner step i folds
        i + 1 into those (made by `jax.random.key`) among the arguments. By default
        one dropout mask serves all evaluations of a step.

    Returns:
      `step(params, opt_state, *args, dynamic_scale=None, **kwargs)`, which returns new
      parameters, a new state, and a :class:`StepOutput`. Micro-batches and members of
      the axis fold their number into PRNG keys; loss and aux are averaged over them, so
      the aux must hold floating-point means. `dynamic_scale` is Flax's `DynamicScale`,
      or what has its `scale` and `value_and_grad`: its scale multiplies the loss of
      every evaluation, for gradients of parameters in float32. Where one overflows,
      parameters and state stay as they are, and the scale falls.

    Raises:
      TypeError: if an argument has the wrong type; `step` raises it for a loss that
        isn't a real scalar, an aux that doesn't match `has_aux` or that can't be
        averaged.
      ValueError: if `micro_batches` or `m` is less than 1, or `m` has no `axis_name`;
        `step` raises it for a batch that can't be split as told, an axis that isn't
        there, and an optimizer with another k or `axis_name`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import lookbehind_optax as lb
      >>> import optax
      >>> loss_fn = lambda params, x: jnp.mean((x - params) ** 2)
      >>> optimizer = lb.lookbehind_sam(optax.sgd(0.1), rho=0.5, k=2, alpha=0.5)
      >>> step = jax.jit(lb.make_step(loss_fn, optimizer))
      >>> params = jnp.array(2.0)
      >>> state = optimizer.init(params)
      >>> params, state, out = step(params, state, jnp.array([0.0, 2.0]))
      >>> print(params, out.loss, out.perturbed_loss)  # the last at 3
      1.65 2.0 5.0

    References:
      Mordido et al., `Lookbehind-SAM: k steps back, 1 step forward
      <https://arxiv.org/abs/2307.16704>`_, 2024; Section 6.2 for switched minibatches,
      appendix A.8 for m-SAM
    """
    _checks.check_function("loss_fn", loss_fn)
    _checks.check_boolean("has_aux", has_aux)

    def with_carried(*args, **kwargs):
        return *_checks.check_aux(loss_fn(*args, **kwargs), has_aux), ()

    carrying_step = make_carrying_step(
        with_carried,
        optimizer,
        switch_minibatches=switch_minibatches,
        micro_batches=micro_batches,
        m=m,
        axis_name=axis_name,
        fresh_keys=fresh_keys,
    )

    def step(params, opt_state, *args, dynamic_scale=None, **kwargs):
        return carrying_step(
            params, opt_state, *args, dynamic_scale=dynamic_scale, **kwargs
        )[:3]

    return step


def make_carrying_step(
    loss_fn,
    optimizer,
    *,
    switch_minibatches=False,
    micro_batches=1,
    m=None,
    axis_name=None,
    fresh_keys=False,
):
    """`make_step` for a loss that returns `(loss, aux, carried)`.

    What is carried comes from the clean pass and is the step's fourth result. Its
    floating-point leaves are averaged as those of the aux; others, such as counters,
    are taken from the first micro-batch.
    """
    _checks.check_transformation("optimizer", optimizer, "optax.sgd(0.1)")
    _checks.check_boolean("switch_minibatches", switch_minibatches)
    _checks.check_count("micro_batches", micro_batches, minimum=1)
    _checks.check_axis_name(axis_name)
    _checks.check_boolean("fresh_keys", fresh_keys)
    if m is not None:
        _checks.check_count("m", m, minimum=1)
        if not isinstance(axis_name, str):
            raise ValueError(
                "m needs an axis_name, one name, the same in the optimizer: "
                'make_step(loss_fn, lb.sam(base, axis_name="group"), m=16, '
                f'axis_name="group"); got {axis_name!r}.'
            )
    optimizer = optax.with_extra_args_support(optimizer)

    def step_of_one_group(params, opt_state, batch, context, dynamic_scale):
        if axis_name is not None:
            batch, context = _keys.fold((batch, context), _axis.index(axis_name))

        def evaluate(p, i=None, batch=batch, **options):  # no i in the clean pass
            if switch_minibatches:
                batch = jax.tree.map(lambda x: x[0 if i is None else i], batch)
            keywords = context
            if fresh_keys and i is not None:
                batch, keywords = _keys.fold((batch, keywords), i + 1)
            options = {"dynamic_scale": dynamic_scale, **options}
            return _evaluation.evaluate(
                loss_fn, p, batch, keywords, micro_batches=micro_batches, **options
            )

        climbed = []  # filled while tracing

        def value_and_grad(p, i):
            climbed.append(True)
            evaluation = evaluate(p, i)
            return evaluation.loss, evaluation.grads

        def grad_fn(p, i):
            p = _axis.local(axis_name, p)
            return _axis.mean(axis_name, evaluate(p, i).grads)

        def mean_loss(p):
            return _axis.mean(axis_name, evaluate(p, differentiate=False).loss)

        if axis_name is not None:  # the gradient of a mean over an axis is a local one
            mean_loss = _with_gradient(mean_loss, lambda p: grad_fn(p, None))

        # The keywords are others' arguments, which a line search hands to value_fn.
        def value_fn(p, *, grad_fn=None, oracle=None):
            return mean_loss(p)

        local = _axis.local(axis_name, params)
        clean = evaluate(local)
        if micro_batches > 1 or m is not None:

            def of_twice():
                twice = jax.tree.map(lambda x: jnp.concatenate([x, x], leading), batch)
                return evaluate(local, batch=twice, differentiate=False)

            _checks.check_means("aux", clean.aux, lambda: of_twice().aux)
            _checks.check_means(
                "the model",
                _axis.floats(clean.carried),
                lambda: _axis.floats(of_twice().carried),
            )
        loss = _axis.mean(axis_name, clean.loss)
        climbs = bool(_climb.states(opt_state))
        # A sharpness-aware member ascends along gradients of its group alone.
        grads = clean.grads if climbs else _axis.mean(axis_name, clean.grads)
        extra_args = {"grad_fn": grad_fn}
        if not _holds(opt_state, optax.contrib.SAMState):  # which takes nothing else
            minibatches = None
            if switch_minibatches:
                minibatches = len(jax.tree.leaves(batch)[0])
            extra_args |= {
                "value": loss,
                "grad": grads,
                "value_fn": value_fn,
                "oracle": _oracle.Oracle(value_and_grad, minibatches, axis_name),
            }
        updates, new_state = optimizer.update(grads, opt_state, params, **extra_args)
        new_params = optax.apply_updates(params, updates)

        grad_norm = _precision.norm(grads).astype(jnp.float32)
        perturbed_loss, alpha = loss.astype(jnp.float32), jnp.float32(1.0)
        for member in _climb.states(new_state):
            grad_norm, alpha = member.grad_norm, member.alpha
            perturbed_loss = member.perturbed_loss if climbed else perturbed_loss
        finite = None
        if dynamic_scale is not None:
            # After an overflow on the climb, all that follows on it is NaN.
            finite = _evaluation.is_finite((clean.grads, perturbed_loss, updates))
            finite = _axis.everywhere(axis_name, finite)
            dynamic_scale = _rescaled(dynamic_scale, finite)
            new_params, new_state = keep_if(
                finite, (new_params, new_state), (params, opt_state)
            )
        aux, carried = _axis.mean_of_floats(axis_name, (clean.aux, clean.carried))
        out = StepOutput(
            loss, aux, grad_norm, perturbed_loss, alpha, finite, dynamic_scale
        )
        return new_params, new_state, out, carried

    leading = 1 if switch_minibatches else 0  # the axis of the examples

    def step(params, opt_state, *args, dynamic_scale=None, **kwargs):
        _checks.check_params(params)
        if dynamic_scale is not None:
            _checks.check_dynamic_scale(dynamic_scale)
        if fresh_keys and not _keys.present((args, kwargs)):
            raise ValueError(
                "fresh_keys needs a PRNG key among the arguments of the step, made by "
                "jax.random.key (those of jax.random.PRNGKey look like any integers)."
            )
        if switch_minibatches and not _climb.states(opt_state):
            raise ValueError(
                "switch_minibatches needs a sharpness-aware optimizer of this library; "
                "any other would use the first minibatch alone."
            )
        if switch_minibatches or micro_batches > 1 or m is not None:
            args = jax.tree.map(jnp.asarray, args)
            examples = _checks.check_batch(args, leading)
            if m is not None:
                _checks.check_divides("m", m, examples)
                examples = m
            _checks.check_divides("micro_batches", micro_batches, examples)
        if m is None:
            return step_of_one_group(params, opt_state, args, kwargs, dynamic_scale)
        groups = jax.tree.map(
            lambda x: x.reshape(*x.shape[:leading], -1, m, *x.shape[leading + 1 :]),
            args,
        )
        step_of_groups = jax.vmap(
            step_of_one_group,
            in_axes=(None, None, leading, None, None),
            out_axes=None,
            axis_name=axis_name,
        )
        try:
            return step_of_groups(params, opt_state, groups, kwargs, dynamic_scale)
        except ValueError as error:
            if "mapped output" not in str(error):
                raise
            raise ValueError(
                "with m, every group would leave a state of its own: what stands "
                "before a sharpness-aware optimizer in a chain, or wraps it, must not "
                "keep the gradients that come in, which are those of one group."
            ) from error

    return step


def keep_if(flag, new, old):
    """The new tree where the flag is set, else the old one, as far as it had them."""
    old_leaves = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(old)
    }

    def keep(path, leaf):
        return jnp.where(flag, leaf, old_leaves.get(jax.tree_util.keystr(path), leaf))

    return jax.tree_util.tree_map_with_path(keep, new)


def _with_gradient(function, gradient):
    """A scalar function of a tree with a gradient of our own, conjugated as Optax's."""
    function = jax.custom_vjp(function)

    def backward(g, cotangent):
        return (jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, g),)

    function.defvjp(lambda p: (function(p), optax.tree.conj(gradient(p))), backward)
    return function


def _rescaled(dynamic_scale, finite):
    """The next loss scale, of the gradient of a function finite where ours were."""
    slope = jnp.where(finite, jnp.float32(1.0), jnp.float32(jnp.nan))
    return dynamic_scale.value_and_grad(lambda x: slope * x)(jnp.float32(0.0))[0]


def _holds(opt_state, kind):
    def is_kind(node):
        return isinstance(node, kind)

    return any(map(is_kind, jax.tree.leaves(opt_state, is_leaf=is_kind)))
