"""The gradient function of a climb: what is there, what it returns, whose it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.members import each
from tests.library.members import NAMED
from tests.library.problems import PARAMS
from tests.library.problems import twice

SGD = optax.sgd(0.1)


each_member = pytest.mark.parametrize("name", NAMED)


@each_member
def test_neither_grad_fn_nor_value_fn(name):
    """The message names everything that passes one."""
    optimizer = NAMED[name](SGD)
    message = (
        r"pass grad_fn=.* or a loss as value_fn=.* or let make_step, linen_step or "
        r"nnx_step call update\. .*optax\.MultiSteps.* use their micro_batches"
    )
    with pytest.raises(ValueError, match=message):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)


@each_member
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda p, i: {"kernel": p["kernel"]}, "must be a tree like params"),
        (lambda p, i: (0.0, p), "must be a tree like params"),
        (
            lambda p, i: {**p, "bias": p["bias"][:2]},
            r"params\['bias'\] has \(2,\) instead of \(3,\)",
        ),
    ],
)
def test_what_grad_fn_returns(name, function, message):
    optimizer = NAMED[name](SGD)
    state = optimizer.init(PARAMS)
    with pytest.raises(ValueError, match=message) as error:
        optimizer.update(PARAMS, state, PARAMS, grad_fn=function)
    assert "what grad_fn returns" in str(error.value)


def test_the_dtype_of_what_grad_fn_returns_is_brought_to_that_of_grads():
    params = jnp.ones(3, jnp.bfloat16)
    optimizer = lb.lookbehind_sam(optax.sgd(0.1, momentum=0.9), k=3)
    updates, _ = optimizer.update(
        params,
        optimizer.init(params),
        params,
        grad_fn=lambda p, i: p.astype(jnp.float32),
    )
    assert updates.dtype == jnp.bfloat16


def test_nothing_is_lost_on_bad_input():
    """A refused update leaves params and state usable, even those to be donated."""
    optimizer = lb.lookbehind_sam(optax.sgd(0.1, momentum=0.9))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1), static_argnums=2)
    def step(params, state, good):
        updates, state = optimizer.update(
            params, state, params, grad_fn=twice if good else lambda p, i: 0.0
        )
        return optax.apply_updates(params, updates), state

    with pytest.raises(ValueError, match="what grad_fn returns"):
        step(params, state, False)
    expected = jax.tree.map(np.asarray, (PARAMS, optimizer.init(PARAMS)))
    jax.tree.map(np.testing.assert_array_equal, (params, state), expected)
    step(params, state, True)


# What stands before a sharpness-aware optimizer.


def loss_fn(params, x):
    return jnp.mean(jnp.tanh(x @ params["kernel"] + params["bias"][None]) ** 2)


X = jnp.array([[0.1, -0.2], [0.5, 0.3]])
IN_FRONT = {
    "decay": optax.add_decayed_weights(1e-2),
    "clip": optax.clip_by_global_norm(1e-3),
    "scale": optax.scale(2.0),
    "freeze": optax.masked(optax.set_to_zero(), {"kernel": True, "bias": False}),
    "trace": optax.trace(0.9),
}
REFUSED = r"^a sharpness-aware optimizer must get the gradient unchanged.* Move it into"


@pytest.mark.parametrize("name", each(IN_FRONT, ["clip", "freeze"]))
def test_what_stands_before_a_climb_is_refused(name):
    """It would act on the first ascent alone; in the base, on what is descended."""
    step = lambda optimizer: jax.jit(lb.make_step(loss_fn, optimizer))(
        PARAMS, optimizer.init(PARAMS), X
    )
    with pytest.raises(ValueError, match=REFUSED):
        step(optax.chain(IN_FRONT[name], lb.lookbehind_sam(SGD)))
    inside = optax.chain(IN_FRONT[name], SGD)
    after, _, _ = step(lb.lookbehind_sam(inside))
    assert jnp.isfinite(after["kernel"]).all()
    # Without a climb there is nothing that it could miss.
    without, _, _ = step(optax.chain(IN_FRONT[name], lb.lookbehind_sam(SGD, k=0)))
    expected, _, _ = step(inside)
    jax.tree.map(np.testing.assert_array_equal, without, expected)


ALONE = {
    "chain": lambda sam: optax.chain(sam, optax.scale(0.5)),
    "identity": lambda sam: optax.chain(optax.identity(), sam, optax.scale(0.5)),
    "apply_if_finite": lambda sam: optax.apply_if_finite(
        optax.chain(sam, optax.scale(0.5)), 3
    ),
    "lookahead": lambda sam: lb.lookahead(sam, k=1, alpha=0.5),
    "k = 0": lambda sam: lb.lookbehind_sam(optax.chain(sam, optax.scale(0.5)), k=0),
}


@pytest.mark.parametrize("name", each(ALONE, ["identity", "apply_if_finite", "k = 0"]))
def test_what_leaves_the_gradient_alone_is_not(name):
    def after(optimizer):
        step = jax.jit(lb.make_step(loss_fn, optimizer))
        return step(PARAMS, optimizer.init(PARAMS), X)[0]

    sam = lb.sam(SGD, rho=0.5)
    params, alone = after(ALONE[name](sam)), after(sam)
    half = jax.tree.map(lambda p, a: p + (a - p) / 2, PARAMS, alone)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), params, half)


def test_the_remedy_for_multi_steps():
    """Whether it passes the gradient function on or, as a transformation, doesn't."""
    multi = optax.MultiSteps(lb.sam(SGD), 2)
    passing_on = optax.GradientTransformationExtraArgs(multi.init, multi.update)
    for optimizer, message in [
        (multi, r"optax.MultiSteps passes neither on: use .*micro_batches inst"),
        (passing_on, r"\(Instead of optax.MultiSteps, use micro_batches\.\)"),
    ]:
        with (
            pytest.raises(ValueError, match=message),
            jax.numpy_dtype_promotion("standard"),
        ):
            jax.jit(lb.make_step(loss_fn, optimizer))(PARAMS, optimizer.init(PARAMS), X)
