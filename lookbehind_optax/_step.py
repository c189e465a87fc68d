"""From a loss to a training step, for any Optax optimizer."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple
from typing import Protocol
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _aux
from lookbehind_optax import _axis
from lookbehind_optax import _batch
from lookbehind_optax import _climb
from lookbehind_optax import _evaluation
from lookbehind_optax import _groups
from lookbehind_optax import _keys
from lookbehind_optax import _loss
from lookbehind_optax import _numbers
from lookbehind_optax import _params
from lookbehind_optax import _precision
from lookbehind_optax import _transformations
from lookbehind_optax import _trees

Params = TypeVar("Params")
OptState = TypeVar("OptState")


class StepOutput(NamedTuple):
    """The results of a step, with the same structure for every optimizer.

    Attributes:
      loss: the loss at the parameters before the step, on the first minibatch if the
        step switches minibatches; float32 scalar (float64 if the loss is).
      aux: what `loss_fn` returned besides the loss in the same clean pass; None
        without `has_aux`.
      grad_norm: norm of the clean gradient; if the optimizer has an `axis_name`, the
        mean of the norms of its members' gradients; float32 scalar.
      perturbed_loss: loss at the last perturbed point, the same as `loss` if the
        optimizer doesn't climb, or is `optax.contrib.sam`, which doesn't report it;
        float32 scalar. `perturbed_loss - loss` is the sharpness that the climb found,
        unless the step switches minibatches or has `fresh_keys`, since the two losses
        are then of different functions. NaN if a loss scale made a perturbed gradient
        overflow.
      alpha: α of the step, averaged over tensors if each has its own; 1 if nothing was
        interpolated; float32 scalar.
      finite: whether all gradients of the step were finite; if not, the step changed
        nothing. None without `dynamic_scale`.
      dynamic_scale: the loss scale for the next step; None without one.

    A wrapper such as `optax.apply_if_finite` may skip a step of a sharpness-aware
    optimizer: `grad_norm`, `perturbed_loss` and `alpha` are then those of the last step
    that it took.
    """

    loss: jax.Array
    aux: Any
    grad_norm: jax.Array
    perturbed_loss: jax.Array
    alpha: jax.Array
    finite: jax.Array | None = None
    dynamic_scale: Any = None


class TrainStep(Protocol):
    """A training step, which preserves the types of parameters and state."""

    def __call__(
        self,
        params: Params,
        opt_state: OptState,
        /,
        *args: Any,
        dynamic_scale: Any = ...,
        **kwargs: Any,
    ) -> tuple[Params, OptState, StepOutput]:
        """Takes the step."""
        ...


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
) -> TrainStep:
    r"""Makes a training step from a loss and any Optax optimizer.

    .. math::
        g = \nabla L_d(\phi), \qquad
        u, s \leftarrow A(g, s, \phi;\ L_d, \nabla L_d), \qquad
        \phi \leftarrow \phi + u

    Besides the gradient, the optimizer A gets whatever it may need: `grad_fn` for
    sharpness-aware optimizers, `value` for `optax.contrib.reduce_on_plateau`, and
    `value`, `grad` and `value_fn` for line searches. The step is pure: jit it, and
    donate its first two arguments.

    In `step(params, opt_state, *args, **kwargs)`, positional arguments are the batch:
    arrays, or trees of them, with examples along the leading axis. Pass values that are
    the same for all examples (keys, statistics, temperatures) by keyword. The
    distinction matters only with `switch_minibatches`, `micro_batches` or `m`. Leaves
    of the parameters that aren't floating-point arrays, such as those of an Equinox
    module, are left unchanged.

    Args:
      loss_fn: a function of `(params, *args, **kwargs)` that returns the loss, a real
        scalar. If the batch is split, the loss must be a mean over examples.
      optimizer: any Optax optimizer.
      has_aux: whether `loss_fn` returns a pair of the loss and anything else, such as
        BatchNorm's new statistics or metrics.
      switch_minibatches: whether the batch carries k minibatches on an additional
        leading axis, one for each inner step of a sharpness-aware optimizer. The clean
        gradient is that of minibatch 0. Inner step i then ascends along the previous
        gradient, for k + 1 gradient evaluations in all; or, with
        `reuse_gradients=False` in the optimizer, along the gradient of minibatch i, for
        2k in all, as in the paper.
      micro_batches: the number of parts into which each evaluation splits its batch,
        processed one at a time to save memory; part j of n has the examples j, j + n,
        j + 2n, ...
      m: the size of the groups of m-SAM. Every m consecutive examples share a
        perturbation, and the descent follows the mean over groups. The optimizer must
        have the same `axis_name` as the step. For an optimizer that doesn't climb, m
        makes no difference.
      axis_name: with m, a name for the axis of groups that the step makes. Without m,
        an existing axis, of the `jax.shard_map`, `jax.pmap` or `jax.vmap` around the
        step, over which loss, aux and gradients are averaged. Perturbations are those
        of the whole batch, the same everywhere, unless the optimizer also has this
        `axis_name`: then each member of the axis is a group.
      fresh_keys: whether each evaluation has its own PRNG keys: the n-th evaluation
        after the clean one folds n into the keys (made by `jax.random.key`) among the
        arguments. By default, all evaluations of a step share one dropout mask.

    Returns:
      `step(params, opt_state, *args, dynamic_scale=None, **kwargs)`, which returns new
      parameters, a new state, and a :class:`StepOutput`. Micro-batches and members of
      the axis fold their index into PRNG keys; loss and aux are averaged over them, so
      the aux must hold floating-point means (or a :class:`ModelState`). `dynamic_scale`
      is Flax's `DynamicScale`, or any object with its `scale` and `value_and_grad`. The
      scale multiplies the loss of every evaluation; the parameters should be float32.
      If a gradient overflows, parameters and state are left unchanged, and the scale
      falls.

    Raises:
      TypeError: if a number isn't an integer, or `optimizer` isn't a transformation;
        `step` raises it for a loss that isn't a real scalar, and for an aux that
        doesn't match `has_aux` or can't be averaged.
      ValueError: if `micro_batches` or `m` is less than 1, or `m` has no `axis_name`;
        `step` raises it for a batch that can't be split as requested, an axis that
        isn't bound, or with m exists already, an optimizer with another k or
        `axis_name`, a sharpness-aware optimizer that doesn't get the gradient
        unchanged, `fresh_keys` without a key, and `switch_minibatches` with an
        optimizer that doesn't climb.

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
    _numbers.check_count("micro_batches", micro_batches, minimum=1)
    if m is not None:
        _numbers.check_count("m", m, minimum=1)
        if not isinstance(axis_name, str):
            raise ValueError(
                "m needs an axis_name, one name, the same in the optimizer: "
                'make_step(loss_fn, lb.sam(base, axis_name="group"), m=16, '
                f'axis_name="group"); got {axis_name!r}.'
            )
    optimizer = _transformations.accept("optimizer", optimizer)
    leading = 1 if switch_minibatches else 0  # the axis of the examples

    def step(params, opt_state, /, *args, dynamic_scale=None, **kwargs):
        _check_call(opt_state, (args, kwargs), switch_minibatches, fresh_keys)
        trainable = _params.trainable(params)

        def loss_of(trainable, *args, **kwargs):
            whole = _params.merge(trainable, params)
            return _aux.pair(loss_fn(whole, *args, **kwargs), has_aux)

        evaluator = _evaluation.Evaluator(
            loss_of, switch_minibatches, micro_batches, fresh_keys, dynamic_scale
        )
        run = functools.partial(_step_of_group, evaluator, optimizer, axis_name, m)
        if switch_minibatches or micro_batches > 1 or m is not None:
            args = _batch.split(args, leading, m, micro_batches)
        if m is not None:
            _axis.check_new(axis_name)
            in_axes = (None, None, leading, None)
            run = jax.vmap(run, in_axes, out_axes=None, axis_name=axis_name)
        trainable, opt_state, out = run(trainable, opt_state, args, kwargs)
        return _params.merge(trainable, params), opt_state, out

    return step


def _step_of_group(
    evaluator, optimizer, axis_name, m, params, opt_state, batch, context
):
    """The step of one member of the axis, or the whole step without an axis."""
    if axis_name is not None:
        batch, context = _keys.fold((batch, context), _axis.index(axis_name))
    evaluate = evaluator.with_gradient
    if m is not None:
        evaluate = _groups.one_after_another(evaluate, axis_name)

    def at(p, i, n):
        return evaluate(p, i, n, batch, context)

    def forward(p, batch=batch):
        return evaluator.forward(p, batch, context)

    local = _axis.local(axis_name, params)
    clean = at(local, None, 0)
    if evaluator.micro_batches > 1 or axis_name is not None:
        axis = 1 if evaluator.switch_minibatches else 0
        _aux.check_means(
            clean.aux, lambda: forward(local, _batch.twice(batch, axis)).aux
        )
    minibatches = None
    if evaluator.switch_minibatches:
        minibatches = len(jax.tree.leaves(batch)[0])
    loss = _loss.Loss(
        evaluate=lambda p, i, n: at(p, i, n)[:2],
        value=clean.loss,
        grads=clean.grads,
        incoming=_axis.mean(axis_name, clean.grads),
        minibatches=minibatches,
        axis_name=axis_name,
        m=m,
    )
    updates, new_state = optimizer.update(
        loss.incoming, opt_state, params, **_extra_args(loss, forward, opt_state)
    )
    new = optax.apply_updates(params, updates), new_state
    out = _output(loss, _aux.mean(axis_name, clean.aux), new_state)
    scale = evaluator.dynamic_scale
    if scale is None:
        return *new, out
    # After an overflow, the rest of the climb is NaN.
    finite = _evaluation.is_finite((clean.grads, out.perturbed_loss, updates))
    finite = _axis.everywhere(axis_name, finite)
    out = out._replace(finite=finite, dynamic_scale=_rescaled(scale, finite))
    return *keep_if(finite, new, (params, opt_state)), out


def _extra_args(loss, forward, opt_state):
    """The extra arguments that optimizers may ask for besides the gradient."""
    if _trees.nodes(opt_state, optax.contrib.SAMState):  # which takes nothing else
        return {"grad_fn": loss}

    def mean_loss(p):
        return _axis.mean(loss.axis_name, forward(p).loss)

    if loss.axis_name is not None:  # the gradient of a mean over an axis is local
        mean_loss = _with_gradient(mean_loss, lambda p: loss.everywhere(p, None, 0)[1])

    # A line search also passes value_fn the `grad_fn` that is meant for others.
    def value_fn(p, *, grad_fn=None):
        return mean_loss(p)

    value = _axis.mean(loss.axis_name, loss.value)
    return dict(grad_fn=loss, value=value, grad=loss.incoming, value_fn=value_fn)


def _output(loss, aux, new_state) -> StepOutput:
    """The results of the step, from its sharpness-aware optimizer if there is one."""
    value = _axis.mean(loss.axis_name, loss.value)
    out = StepOutput(
        loss=value,
        aux=aux,
        grad_norm=_precision.norm(loss.incoming).astype(jnp.float32),
        perturbed_loss=value.astype(jnp.float32),
        alpha=jnp.float32(1.0),
    )
    # The last one is the newest: a lookahead's state has that of its last
    # synchronization before it.
    for state in _trees.nodes(new_state, _climb.SharpnessAwareState):
        seen = ("grad_norm", "perturbed_loss", "alpha")
        out = out._replace(**{name: getattr(state, name) for name in seen})
    return out


def _check_call(opt_state, arguments, switch_minibatches, fresh_keys):
    if fresh_keys and not _keys.present(arguments):
        raise ValueError(
            "fresh_keys needs a PRNG key among the arguments of the step, made by "
            "jax.random.key (jax.random.PRNGKey makes ordinary integers instead)."
        )
    states = _trees.nodes(opt_state, _climb.SharpnessAwareState)
    if switch_minibatches and not states:
        raise ValueError(
            "switch_minibatches needs a sharpness-aware optimizer of this library; "
            "any other would use only the first minibatch."
        )


def keep_if(flag, new, old):
    """The new tree if the flag is set, else the old one; added leaves always stay."""
    old_leaves = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(old)
    }

    def keep(path, leaf):
        return jnp.where(flag, leaf, old_leaves.get(jax.tree_util.keystr(path), leaf))

    return jax.tree_util.tree_map_with_path(keep, new)


def _with_gradient(function, gradient):
    """A scalar function of a tree with a custom gradient, conjugated as in Optax."""
    function = jax.custom_vjp(function)

    def backward(g, cotangent):
        return (jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, g),)

    function.defvjp(lambda p: (function(p), optax.tree.conj(gradient(p))), backward)
    return function


def _rescaled(dynamic_scale, finite):
    """The next loss scale, from a gradient that is finite if the step's were."""
    slope = jnp.where(finite, jnp.float32(1.0), jnp.float32(jnp.nan))
    return dynamic_scale.value_and_grad(lambda x: slope * x)(jnp.float32(0.0))[0]
