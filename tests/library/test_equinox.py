"""An Equinox module goes through `make_step` as it is."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.lenient import lenient
from tests.library.members import each
from tests.library.members import FEW
from tests.library.members import SGD
from tests.library.problems import regression


class Model(eqx.Module):
    """With functions, numbers, a string, None and an integer array among its leaves."""

    first: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    last: eqx.nn.Linear
    activation: object
    width: int
    name: str
    nothing: None
    steps: jax.Array
    scale: float

    def __init__(self, key):
        keys = jax.random.split(key)
        self.first = eqx.nn.Linear(3, 8, key=keys[0])
        self.last = eqx.nn.Linear(8, 2, key=keys[1], use_bias=False)
        self.dropout = eqx.nn.Dropout(0.25)
        self.activation = jnp.tanh
        self.width = 8
        self.name = "model"
        self.nothing = None
        self.steps = jnp.array([3, 4])
        self.scale = 2.0

    def __call__(self, x, key=None):
        h = self.activation(self.first(x)) * jnp.float32(self.scale)
        h = self.dropout(h, key=key, inference=key is None)
        return self.last(h)


@pytest.fixture
def model():
    return Model(jax.random.key(0))


def batch():
    return regression(examples=12, width=3)[1]


def loss_fn(model, x, y, key=None):
    if key is None:
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)
    keys = jax.random.split(key, len(x))
    return jnp.mean((jax.vmap(model)(x, keys) - y) ** 2)


def trainable(model):
    return eqx.filter(model, eqx.is_inexact_array)


def step_by_hand(optimizer):
    """As it is written without `make_step`, with what is trained and the rest apart."""

    @eqx.filter_jit
    def step(model, state, *batch):
        params, static = eqx.partition(model, eqx.is_inexact_array)
        loss = lambda params: loss_fn(eqx.combine(params, static), *batch)
        updates, state = optax.with_extra_args_support(optimizer).update(
            jax.grad(loss)(params), state, params, value_fn=loss
        )
        return eqx.apply_updates(model, updates), state

    return step


def arrays(tree):
    return [x for x in jax.tree.leaves(tree) if eqx.is_inexact_array(x)]


def assert_close(actual, expected):
    for x, y in zip(arrays(actual), arrays(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


OPTIMIZERS = {
    "sgd": SGD,
    "adam": lenient(optax.adam(0.1)),
    **{name: make(SGD) for name, make in FEW.items()},
}


@pytest.mark.parametrize("name", each(OPTIMIZERS, ["lookbehind_asam_adaptive", "sgd"]))
def test_it_is_the_step_by_hand(name, model):
    optimizer = OPTIMIZERS[name]
    step = eqx.filter_jit(lb.make_step(loss_fn, optimizer))
    by_hand = step_by_hand(optimizer)
    here = there = model, optimizer.init(trainable(model))
    for _ in range(3):
        clean = loss_fn(here[0], *batch())
        *here, out = step(*here, *batch())
        there = by_hand(*there, *batch())
        assert_close(here[0], there[0])
        np.testing.assert_allclose(out.loss, clean, rtol=1e-6)
    after = here[0]
    # What isn't trained stays, and the tree is the same one.
    assert jax.tree.structure(after) == jax.tree.structure(model)
    assert isinstance(after, Model)
    assert after.activation is jnp.tanh
    assert (after.width, after.name, after.nothing) == (8, "model", None)
    assert after.scale == 2.0
    np.testing.assert_array_equal(after.steps, model.steps)
    assert (after.first.weight != model.first.weight).any()


@pytest.mark.parametrize("name", each(["sgd", "lookbehind_sam"], ["lookbehind_sam"]))
def test_one_compilation(name, model):
    optimizer = OPTIMIZERS[name]
    traces = []

    def counted(model, x, y):
        traces.append(None)
        return loss_fn(model, x, y)

    step = eqx.filter_jit(lb.make_step(counted, optimizer))
    state = optimizer.init(trainable(model))
    for _ in range(2):  # the first state may have other types than those to come
        model, state, _ = step(model, state, *batch())
    before = len(traces)
    for _ in range(3):
        model, state, _ = step(model, state, *batch())
    assert len(traces) == before


PARTS = {
    "whole": ({}, [slice(None)]),
    "fresh keys": ({"fresh_keys": True}, [slice(None)]),
    "micro-batches": ({"micro_batches": 3}, [slice(j, None, 3) for j in range(3)]),
    "groups": (
        {"m": 4, "axis_name": "group"},
        [slice(4 * j, 4 * j + 4) for j in range(3)],
    ),
}


@pytest.mark.parametrize("name", each(PARTS, ["groups"]))
def test_dropout_and_parts_of_the_batch(name, model):
    """Each with a mask of its own, whatever is beside the trained leaves."""
    options, parts = PARTS[name]
    optimizer = lb.lookbehind_sam(SGD, axis_name=options.get("axis_name"))
    loss = lambda model, x, y, *, key: loss_fn(model, x, y, key)
    step = eqx.filter_jit(lb.make_step(loss, optimizer, **options))
    (x, y), key = batch(), jax.random.key(1)
    after, _, out = step(model, optimizer.init(trainable(model)), x, y, key=key)
    keys = [jax.random.fold_in(key, j) for j in range(3)] if len(parts) > 1 else [key]
    losses = [
        loss_fn(model, x[part], y[part], key)
        for part, key in zip(parts, keys, strict=True)
    ]
    np.testing.assert_allclose(out.loss, np.mean(losses), rtol=1e-5)
    assert abs(losses[0] - loss_fn(model, x[parts[0]], y[parts[0]])) > 1e-3
    assert isinstance(after, Model)
    assert (after.last.weight != model.last.weight).any()


def test_half_precision_and_loss_scale(model):
    """Leaves that aren't trained don't disturb what is scaled or kept."""
    from flax.training.dynamic_scale import DynamicScale

    optimizer = lb.lookbehind_sam(SGD)
    step = eqx.filter_jit(lb.make_step(loss_fn, optimizer))
    state = optimizer.init(trainable(model))
    x, y = batch()
    bad = x.at[0, 0].set(jnp.inf)
    after, kept, out = step(model, state, bad, y, dynamic_scale=DynamicScale())
    assert not out.finite
    assert eqx.tree_equal(after, model)
    assert eqx.tree_equal(kept, state)
    after, _, out = step(model, state, x, y, dynamic_scale=DynamicScale())
    assert out.finite
    assert_close(after, step(model, state, x, y)[0])


def test_a_mask_of_a_module(model):
    """As equinox users make one, with a prefix or a function of the module."""
    everywhere = lb.sam(SGD, rho=0.5)
    biases = jax.tree.map(lambda p: p.ndim == 1, trainable(model))
    functions = [biases, lambda m: jax.tree.map(lambda p: p.ndim == 1, m)]
    results = []
    for mask in functions:
        optimizer = lb.sam(SGD, rho=0.5, mask=mask)
        step = eqx.filter_jit(lb.make_step(loss_fn, optimizer))
        results.append(step(model, optimizer.init(trainable(model)), *batch())[0])
    assert eqx.tree_equal(*results)
    step = eqx.filter_jit(lb.make_step(loss_fn, everywhere))
    other = step(model, everywhere.init(trainable(model)), *batch())[0]
    assert not eqx.tree_equal(results[0], other)


@pytest.mark.parametrize(
    "make",
    [
        lambda base: lb.lookahead(base, k=3, alpha=0.5),
        lambda base: lb.lookahead(lb.sam(base), k=3, outer=optax.sgd(0.5)),
        lambda base: optax.chain(lb.lookahead(base, k=3), optax.identity()),
    ],
)
def test_eval_params_returns_a_module(make, model):
    optimizer = make(SGD)
    step = eqx.filter_jit(lb.make_step(loss_fn, optimizer))
    fast, state = model, optimizer.init(trainable(model))
    for t in range(1, 4):
        fast, state, _ = step(fast, state, *batch())
        slow = lb.eval_params(state, fast)
        assert isinstance(slow, Model)
        assert jax.tree.structure(slow) == jax.tree.structure(fast)
        assert slow.activation is jnp.tanh
        loss_fn(slow, *batch())  # it can be called
        expected = fast if t == 3 else model
        assert_close(slow, expected)
        assert eqx.tree_equal(slow.steps, model.steps)
    assert_close(lb.eval_params((), fast), fast)


def test_a_module_by_hand(model):
    """The transformation alone takes the trained part."""
    optimizer = lb.lookbehind_asam(SGD, k=2)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    state = optimizer.init(params)
    grad = jax.grad(lambda p: loss_fn(eqx.combine(p, static), *batch()))

    @jax.jit
    def update(params, state):
        return optimizer.update(
            grad(params), state, params, grad_fn=lambda p, i: grad(p)
        )

    updates, state = update(params, state)
    by_step = eqx.filter_jit(lb.make_step(loss_fn, optimizer))
    expected, _, _ = by_step(model, optimizer.init(params), *batch())
    assert_close(eqx.apply_updates(model, updates), expected)


def test_a_module_without_anything_to_train():
    frozen = eqx.nn.Lambda(functools.partial(jnp.sum))
    step = lb.make_step(lambda model, x: model(x), SGD)
    with pytest.raises(TypeError, match=r"^params must hold floating-point or complex"):
        step(frozen, SGD.init(trainable(frozen)), jnp.ones(2))
