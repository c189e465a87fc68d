"""What parameters, gradients and masks must be; which leaves are trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from lookbehind_optax import _params
from tests.library.members import ALL
from tests.library.members import NAMED
from tests.library.problems import PARAMS
from tests.library.problems import twice

SGD = optax.sgd(0.1)


each_member = pytest.mark.parametrize("name", ALL)
each_sharpness_aware = pytest.mark.parametrize("name", NAMED)


@each_member
def test_params_missing(name):
    optimizer = ALL[name](SGD)
    state = optimizer.init(PARAMS)
    message = r"^params must be passed.* update\(grads, state, params, "
    with pytest.raises(ValueError, match=message):
        optimizer.update(PARAMS, state, grad_fn=twice)


@each_member
def test_integer_parameters(name):
    optimizer = ALL[name](SGD)
    params = {"layer": {"kernel": jnp.ones(2), "steps": jnp.zeros(2, jnp.int32)}}
    message = r"params\['layer'\]\['steps'\] is int32"
    with pytest.raises(TypeError, match=message):
        optimizer.init(params)
    state = optimizer.init({"layer": {"kernel": jnp.ones(2)}})
    with pytest.raises(TypeError, match=message):
        optimizer.update(params, state, params, grad_fn=twice)


def test_parameters_that_are_no_arrays():
    with pytest.raises(TypeError, match=r"params\['w'\] is 1.0 of type float"):
        lb.sam(SGD).init({"w": 1.0})


@each_member
def test_gradients_unlike_the_parameters(name):
    optimizer = ALL[name](SGD)
    state = optimizer.init(PARAMS)
    with pytest.raises(ValueError, match=r"^grads must be a tree like params"):
        optimizer.update([1.0], state, PARAMS, grad_fn=twice)
    grads = {**PARAMS, "kernel": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=r"^grads must have the shapes.*'kernel'"):
        optimizer.update(grads, state, PARAMS, grad_fn=twice)


@pytest.mark.parametrize(
    "bad", [1.0, jnp.ones(3, jnp.int32), jnp.ones(3, jnp.complex64)]
)
def test_gradients_that_are_no_real_arrays(bad):
    optimizer = lb.sam(SGD)
    state = optimizer.init(PARAMS)
    grads = {**PARAMS, "bias": bad}
    message = r"must hold arrays of floating-point numbers.*params\['bias'\] is "
    with pytest.raises(ValueError, match="^grads " + message):
        optimizer.update(grads, state, PARAMS, grad_fn=twice)
    with pytest.raises(ValueError, match="^what grad_fn returns " + message):
        optimizer.update(PARAMS, state, PARAMS, grad_fn=lambda p, i: grads)


# Masks.


@each_sharpness_aware
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
    optimizer = NAMED[name](SGD, mask=mask)
    with pytest.raises(error, match=message):
        optimizer.init(PARAMS)


def test_a_mask_that_inject_hyperparams_takes_for_a_schedule():
    """It is called with a count, and would silently make SAM its base."""
    mask = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    injected = optax.inject_hyperparams(lb.sam)(SGD, rho=0.5, mask=mask)
    with pytest.raises(ValueError, match=r"static_args=\('mask',\)"):
        injected.init(PARAMS)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    """A tree with a __call__."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return x @ self.kernel + self.bias


def test_a_mask_that_can_be_called():
    module = Module(jnp.full((2, 3), 30.0), jnp.array([3.0, 4.0, 0.0]))
    mask = jax.tree.map(lambda p: p.ndim < 2, module)
    optimizer = lb.sam(SGD, rho=0.5, mask=mask)
    updates, _ = optimizer.update(
        module, optimizer.init(module), module, grad_fn=lambda p, i: p
    )
    # The bias alone is perturbed, by 1/10 of itself.
    np.testing.assert_allclose(updates.kernel, -0.1 * module.kernel, rtol=1e-6)
    np.testing.assert_allclose(updates.bias, -0.11 * module.bias, rtol=1e-6)


# Holes, and leaves that aren't trained.


def test_holes_in_the_parameters():
    optimizer = optax.partition(
        {"a": lb.sam(SGD), "b": SGD}, {"kernel": "a", "bias": "b"}
    )
    message = r"^params must be whole; got optax.MaskedNode.*mask= what to perturb"
    with pytest.raises(ValueError, match=message):
        optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, grad_fn=twice)


def test_trainable_leaves_and_back():
    tree = {"w": jnp.ones(2), "n": jnp.int32(3), "f": jnp.tanh, "rate": 0.5, "no": None}
    trained = _params.trainable(tree)
    assert {name for name, leaf in trained.items() if leaf is not None} == {"w"}
    merged = _params.merge({**trained, "w": trained["w"] + 1}, tree)
    assert merged["w"].tolist() == [2.0, 2.0]
    assert all(merged[name] is tree[name] for name in ("n", "f", "rate", "no"))


def test_nothing_to_train():
    """Said in the words that `init` has for it, not by a silent step."""
    message = r"^params must hold floating-point or complex arrays; the leaf .* int32"
    with pytest.raises(TypeError, match=message):
        _params.trainable({"n": jnp.int32(3)})
    with pytest.raises(TypeError, match=message):
        lb.make_step(lambda p: jnp.float32(p["n"]), SGD)({"n": jnp.int32(3)}, ())
