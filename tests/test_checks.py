"""Bad input: an exception that names the argument, and nothing changed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb

SGD = optax.sgd(0.1)
SHARPNESS_AWARE = {
    "sam": lb.sam,
    "asam": lb.asam,
    "multistep_sam": lb.multistep_sam,
    "multistep_asam": lb.multistep_asam,
    "lookbehind_sam": lb.lookbehind_sam,
    "lookbehind_asam": lb.lookbehind_asam,
    "sharpness_aware": functools.partial(
        lb.sharpness_aware, direction=lb.sam_direction()
    ),
}
WITH_K = [name for name in SHARPNESS_AWARE if name not in ("sam", "asam")]
PARAMS = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}


def grad_fn(p, i):
    return jax.tree.map(lambda x: 2 * x, p)


each_member = pytest.mark.parametrize("name", SHARPNESS_AWARE)
each_with_k = pytest.mark.parametrize("name", WITH_K)


# Numbers.


@each_member
@pytest.mark.parametrize(
    ("rho", "error"),
    [
        (-0.1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (np.float32(-1.0), ValueError),
        (jnp.array(-1.0), ValueError),
        (jnp.array([0.1, 0.2]), ValueError),
        ("0.1", TypeError),
        (None, TypeError),
        (True, TypeError),
        (0.1 + 0j, TypeError),
        (jnp.array(1j), TypeError),
    ],
)
def test_rho(name, rho, error):
    with pytest.raises(error, match=r"^rho must be .* got "):
        SHARPNESS_AWARE[name](SGD, rho=rho)


@pytest.mark.parametrize("name", ["lookbehind_sam", "lookbehind_asam", "lookahead"])
@pytest.mark.parametrize(
    ("alpha", "error"), [(-0.5, ValueError), (np.nan, ValueError), ([0.5], TypeError)]
)
def test_alpha(name, alpha, error):
    factory = {**SHARPNESS_AWARE, "lookahead": lb.lookahead}[name]
    with pytest.raises(error, match=r"^alpha must be a non-negative number"):
        factory(SGD, alpha=alpha)


@pytest.mark.parametrize("name", ["asam", "multistep_asam", "lookbehind_asam"])
@pytest.mark.parametrize(
    ("eta", "error"), [(-0.01, ValueError), (np.nan, ValueError), ("a", TypeError)]
)
def test_eta(name, eta, error):
    with pytest.raises(error, match=r"^eta must be a non-negative number"):
        SHARPNESS_AWARE[name](SGD, eta=eta)


def test_eta_is_no_schedule():
    with pytest.raises(TypeError, match=r"^eta must be a non-negative number;"):
        lb.asam(SGD, eta=optax.constant_schedule(0.1))


@each_with_k
@pytest.mark.parametrize(
    ("k", "error"),
    [(-1, ValueError), (1.5, TypeError), (2.0, TypeError), (True, TypeError)],
)
def test_k(name, k, error):
    with pytest.raises(error, match=r"^k must be (an integer|at least 0); got "):
        SHARPNESS_AWARE[name](SGD, k=k)


@each_with_k
def test_k_may_be_numpys(name):
    SHARPNESS_AWARE[name](SGD, k=np.int64(2))


@pytest.mark.parametrize("name", [*WITH_K, "lookahead"])
def test_a_traced_k(name):
    factory = {**SHARPNESS_AWARE, "lookahead": lb.lookahead}[name]
    with pytest.raises(TypeError, match=r"pass static_args=\('k',\)"):
        jax.jit(lambda k: factory(SGD, k=k).init(PARAMS))(2)
    with pytest.raises(TypeError, match=r"pass static_args=\('k',\)"):
        optax.inject_hyperparams(factory)(SGD, k=2).init(PARAMS)


@pytest.mark.parametrize("k", [0, -3])
def test_lookahead_needs_a_step(k):
    with pytest.raises(ValueError, match="k must be at least 1"):
        lb.lookahead(SGD, k=k)


def test_choices():
    with pytest.raises(ValueError, match="pullback must be one of 'none', 'reset', "):
        lb.lookahead(SGD, pullback="pullbck")
    with pytest.raises(ValueError, match="descent must be one of 'last', 'mean', "):
        lb.sharpness_aware(SGD, lb.sam_direction(), descent="first")
    with pytest.raises(TypeError, match="average must be a boolean"):
        lb.multistep_sam(SGD, average="mean")
    with pytest.raises(TypeError, match="reuse_gradients must be a boolean"):
        lb.lookbehind_sam(SGD, reuse_gradients=None)
    with pytest.raises(TypeError, match="per_tensor must be a boolean"):
        lb.adaptive_alpha(per_tensor=1)


# Functions and transformations.


@pytest.mark.parametrize("name", [*SHARPNESS_AWARE, "lookahead"])
@pytest.mark.parametrize("base", [optax.sgd, None, 0.1, optax.MultiSteps(SGD, 2)])
def test_base(name, base):
    factory = {**SHARPNESS_AWARE, "lookahead": lb.lookahead}[name]
    with pytest.raises(TypeError, match=r"^base must be an optax.GradientTransform"):
        factory(base)


def test_direction():
    with pytest.raises(TypeError, match=r"^direction must be an optax.GradientTran"):
        lb.sharpness_aware(SGD, lb.sam_direction)


def test_weights():
    with pytest.raises(TypeError, match=r"^weights must be a function; got "):
        lb.asam_direction(weights={"kernel": True})


@each_member
def test_params_missing(name):
    optimizer = SHARPNESS_AWARE[name](SGD)
    state = optimizer.init(PARAMS)
    with pytest.raises(ValueError, match="params must be passed to update"):
        optimizer.update(PARAMS, state, grad_fn=grad_fn)


def test_params_missing_for_lookahead():
    optimizer = lb.lookahead(SGD)
    with pytest.raises(ValueError, match="params must be passed to update"):
        optimizer.update(PARAMS, optimizer.init(PARAMS))


@each_member
def test_neither_grad_fn_nor_value_fn(name):
    optimizer = SHARPNESS_AWARE[name](SGD)
    with pytest.raises(ValueError, match=r"pass grad_fn=.* or a loss as value_fn="):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)


@pytest.mark.parametrize("argument", ["grad_fn", "value_fn"])
def test_functions_that_are_none(argument):
    optimizer = lb.sam(SGD)
    state = optimizer.init(PARAMS)
    with pytest.raises(TypeError, match=f"^{argument} must be a function; got "):
        optimizer.update(PARAMS, state, PARAMS, **{argument: PARAMS})


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
    optimizer = SHARPNESS_AWARE[name](SGD)
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


# Trees.


@pytest.mark.parametrize("name", [*SHARPNESS_AWARE, "lookahead"])
def test_integer_parameters(name):
    optimizer = {**SHARPNESS_AWARE, "lookahead": lb.lookahead}[name](SGD)
    params = {"layer": {"kernel": jnp.ones(2), "steps": jnp.zeros(2, jnp.int32)}}
    message = r"params\['layer'\]\['steps'\] is int32"
    with pytest.raises(TypeError, match=message):
        optimizer.init(params)
    state = optimizer.init({"layer": {"kernel": jnp.ones(2)}})
    with pytest.raises(TypeError, match=message):
        optimizer.update(params, state, params, grad_fn=grad_fn)


def test_parameters_that_are_no_arrays():
    with pytest.raises(TypeError, match=r"params\['w'\] is 1.0 of type float"):
        lb.sam(SGD).init({"w": 1.0})


@pytest.mark.parametrize("name", [*SHARPNESS_AWARE, "lookahead"])
def test_gradients_unlike_the_parameters(name):
    optimizer = {**SHARPNESS_AWARE, "lookahead": lb.lookahead}[name](SGD)
    state = optimizer.init(PARAMS)
    with pytest.raises(ValueError, match=r"^grads must be a tree like params"):
        optimizer.update([1.0], state, PARAMS, grad_fn=grad_fn)
    grads = {**PARAMS, "kernel": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=r"^grads must have the shapes.*'kernel'"):
        optimizer.update(grads, state, PARAMS, grad_fn=grad_fn)


@each_member
@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ({"kernel": True}, ValueError, "^mask must have the structure of params"),
        ({"kernel": True, "other": True}, ValueError, "^mask must have the structure"),
        ([True, False], ValueError, "^mask must have the structure of params"),
        (
            {"kernel": 1, "bias": True},
            TypeError,
            r"params\['kernel'\] is 1 of type int",
        ),
        (lambda p: {"kernel": True}, ValueError, "^mask must have the structure"),
        (False, ValueError, "^mask must leave something to perturb"),
    ],
)
def test_mask(name, mask, error, message):
    optimizer = SHARPNESS_AWARE[name](SGD, mask=mask)
    with pytest.raises(error, match=message):
        optimizer.init(PARAMS)


def test_a_mask_that_inject_hyperparams_takes_for_a_schedule():
    """It is called with a count, and would silently turn SAM into its base."""
    mask = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    injected = optax.inject_hyperparams(lb.sam)(SGD, rho=0.5, mask=mask)
    with pytest.raises(ValueError, match=r"static_args=\('mask',\)"):
        injected.init(PARAMS)


def test_a_mask_that_can_be_called():
    """A module may define __call__ and still be a tree."""

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Module:
        kernel: jax.Array
        bias: jax.Array

        def __call__(self, x):
            return x @ self.kernel + self.bias

    module = Module(jnp.ones((2, 3)), jnp.ones(3))
    mask = jax.tree.map(lambda p: p.ndim > 1, module)
    optimizer = lb.sam(SGD, mask=mask)
    optimizer.update(module, optimizer.init(module), module, grad_fn=grad_fn)


@pytest.mark.parametrize("name", ["rho", "alpha"])
def test_schedules_of_vectors(name):
    optimizer = lb.lookbehind_sam(SGD, **{name: lambda count: jnp.ones(3)})
    with pytest.raises(ValueError, match=f"^{name} must be a scalar, or a schedule"):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, grad_fn=grad_fn)


def test_a_lookahead_schedule_of_vectors():
    optimizer = lb.lookahead(SGD, alpha=lambda count: jnp.ones(3))
    with pytest.raises(ValueError, match=r"^alpha must be a scalar, or a schedule"):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)


def test_adaptive_alpha_not_called():
    with pytest.raises(TypeError, match=r"^alpha must be adaptive_alpha\(\), the fun"):
        lb.lookbehind_sam(SGD, alpha=lb.adaptive_alpha)


def test_a_sharpness_aware_base():
    with pytest.raises(TypeError, match=r"^base must not be sharpness-aware itself"):
        lb.lookbehind_sam(optax.chain(lb.sam(SGD))).init(PARAMS)
    lb.lookbehind_sam(lb.sam(SGD), k=0).init(PARAMS)


@pytest.mark.parametrize(
    "bad", [1.0, jnp.ones(3, jnp.int32), jnp.ones(3, jnp.complex64)]
)
def test_gradients_that_are_no_real_arrays(bad):
    optimizer = lb.sam(SGD)
    state = optimizer.init(PARAMS)
    grads = {**PARAMS, "bias": bad}
    message = r"must hold arrays of floating-point numbers.*params\['bias'\] is "
    with pytest.raises(ValueError, match="^grads " + message):
        optimizer.update(grads, state, PARAMS, grad_fn=grad_fn)
    with pytest.raises(ValueError, match="^what grad_fn returns " + message):
        optimizer.update(PARAMS, state, PARAMS, grad_fn=lambda p, i: grads)


def test_nothing_is_lost_on_bad_input():
    """A refused update leaves params and state usable, even those to be donated."""
    optimizer = lb.lookbehind_sam(optax.sgd(0.1, momentum=0.9))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1), static_argnums=2)
    def step(params, state, good):
        updates, state = optimizer.update(
            params, state, params, grad_fn=grad_fn if good else lambda p, i: 0.0
        )
        return optax.apply_updates(params, updates), state

    with pytest.raises(ValueError, match="what grad_fn returns"):
        step(params, state, False)
    expected = jax.tree.map(np.asarray, (PARAMS, optimizer.init(PARAMS)))
    jax.tree.map(np.testing.assert_array_equal, (params, state), expected)
    step(params, state, True)
