"""The step with a linen TrainState."""

import functools
from typing import Any

import chex
import flax.core
import flax.linen as nn
from flax.training import train_state
from flax.training.dynamic_scale import DynamicScale
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.comparisons import without_perturbed_loss
from tests.library.lenient import lenient
from tests.library.members import each
from tests.library.members import FEW
from tests.library.members import OTHERS
from tests.library.members import SGD
from tests.library.problems import classification as batch


class Model(nn.Module):
    normalize: bool = True

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(8)(x)
        if self.normalize:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        x = nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(nn.tanh(x))
        return nn.Dense(2)(x)


class TrainState(train_state.TrainState):
    batch_stats: Any


def make_state(tx, **options):
    model = Model(**options)
    with jax.numpy_rank_promotion("allow"):
        variables = model.init(jax.random.key(0), batch()[0])
    return TrainState.create(
        apply_fn=model.apply,
        tx=tx,
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
    )


def make_loss(state):
    def loss_fn(params, x, y, *, key=None):
        logits, updates = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            x,
            mutable=["batch_stats"],
            rngs={} if key is None else {"dropout": key},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses.mean(), {"batch_stats": {}, **updates, "logit": logits.mean()}

    return loss_fn


@functools.partial(jax.jit, static_argnames=("micro_batches", "m", "axis_name"))
def train_step(state, x, y, **options):
    with jax.numpy_rank_promotion("allow"):
        return lb.linen_step(
            state,
            make_loss(state),
            x,
            y,
            has_aux=True,
            mutable=["batch_stats"],
            **options,
        )


@jax.jit
def step_by_hand(state, x, y):
    """As it is written without `linen_step`."""
    loss_fn = make_loss(state)
    with jax.numpy_rank_promotion("allow"):
        grad = jax.grad(loss_fn, has_aux=True)
        grads, aux = grad(state.params, x, y)
        updates, opt_state = state.tx.update(
            grads, state.opt_state, state.params, grad_fn=lambda p, i: grad(p, x, y)[0]
        )
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        batch_stats=aux["batch_stats"],
    ), aux


OPTIMIZERS = {
    **{name: member(SGD) for name, member in FEW.items()},
    "adam": lenient(optax.adam(0.1)),
}


@pytest.mark.parametrize(
    "name", each(OPTIMIZERS, ["lookbehind_asam_adaptive", "adam"], slow=OTHERS)
)
def test_it_is_the_step_by_hand(name):
    """With BatchNorm's statistics from the clean pass."""
    here = there = make_state(OPTIMIZERS[name])
    for step in range(3):
        there, aux = step_by_hand(there, *batch())
        here, out = train_step(here, *batch())
        assert here.step == step + 1
        chex.assert_trees_all_close(
            (here.params, here.batch_stats, out.aux),
            (there.params, there.batch_stats, aux),
            rtol=1e-5,
            atol=1e-6,
        )
        chex.assert_trees_all_close(
            without_perturbed_loss((here.opt_state,)),
            without_perturbed_loss((there.opt_state,)),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize(
    "options",
    each(
        [{"micro_batches": 3}, {"m": 4, "axis_name": "group"}], [{"micro_batches": 3}]
    ),
)
def test_statistics_are_the_mean_over_parts(options):
    state = make_state(lb.sam(SGD, axis_name=options.get("axis_name")))
    after, _ = train_step(state, *batch(), **options)
    x, y = batch()
    strided = "micro_batches" in options
    parts = [
        slice(j, None, 3) if strided else slice(4 * j, 4 * j + 4) for j in range(3)
    ]
    plain = make_state(SGD)
    each = [train_step(plain, x[part], y[part])[0].batch_stats for part in parts]
    mean = jax.tree.map(lambda *stats: sum(stats) / 3, *each)
    chex.assert_trees_all_close(after.batch_stats, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_micro_batches_without_batch_norm():
    state = make_state(lb.lookbehind_sam(SGD, k=3), normalize=False)
    whole, out = train_step(state, *batch())
    parts, out_of_parts = train_step(state, *batch(), micro_batches=4)
    chex.assert_trees_all_close(
        (whole.params, out), (parts.params, out_of_parts), rtol=1e-5, atol=1e-6
    )


def test_dropout_keeps_its_key():
    """ρ = 0 perturbs nothing: with the same mask the loss is the same."""
    state = make_state(lb.sam(SGD, rho=0.0))
    key = jax.random.key(1)
    _, out = train_step(state, *batch(), key=key)
    np.testing.assert_allclose(out.perturbed_loss, out.loss, rtol=1e-6)
    fresh = jax.jit(
        lambda state, x, y, key: lb.linen_step(
            state,
            make_loss(state),
            x,
            y,
            key=key,
            has_aux=True,
            mutable="batch_stats",
            fresh_keys=True,
        )
    )
    with jax.numpy_rank_promotion("allow"):
        _, out = fresh(state, *batch(), key)
    assert abs(out.perturbed_loss - out.loss) > 1e-3


def test_an_overflowing_step_changes_nothing():
    state = make_state(lb.lookbehind_sam(SGD))
    x, y = batch()
    bad = x.at[0, 0].set(jnp.inf)  # which BatchNorm would take into its statistics
    after, out = train_step(state, bad, y, dynamic_scale=DynamicScale())
    chex.assert_trees_all_equal(after, state.replace(step=jnp.int32(0)))
    assert not out.finite
    assert out.dynamic_scale.scale == 2.0**15
    after, out = train_step(state, x, y, dynamic_scale=DynamicScale())
    assert out.finite
    assert after.step == 1
    unscaled, _ = train_step(state, x, y)
    chex.assert_trees_all_close(after.params, unscaled.params, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", each(OPTIMIZERS, ["lookbehind_asam_adaptive"]))
def test_a_whole_step_lowers_for_accelerators(name):
    state = make_state(OPTIMIZERS[name])
    leaves, structure = jax.tree.flatten(state)

    @jax.jit
    def step(leaves, x, y):
        state, out = train_step(jax.tree.unflatten(structure, leaves), x, y)
        return jax.tree.leaves((state, out))

    traced = step.trace(leaves, *batch())
    loops = name.startswith(("multistep", "lookbehind")) and not name.endswith("k0")
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.dot_general" in text
        if name != "adam":
            assert text.count("stablehlo.while") == loops


class Averaging(TrainState):
    """Keeps a moving average of the parameters, as users do by an override."""

    average: Any
    seen: Any  # the norm of the gradient

    def apply_gradients(self, *, grads, **kwargs):
        new = super().apply_gradients(grads=grads, **kwargs)
        average = jax.tree.map(lambda a, p: (a + p) / 2, self.average, new.params)
        return new.replace(average=average, seen=optax.tree.norm(grads))


def averaging(tx):
    state = make_state(tx)
    return Averaging.create(
        apply_fn=state.apply_fn,
        tx=tx,
        params=state.params,
        batch_stats=state.batch_stats,
        average=state.params,
        seen=jnp.zeros([]),
    )


OVERRIDING = {
    "sgd": (SGD, {}),
    "lookbehind": (lb.lookbehind_sam(SGD, k=3), {}),
    "groups": (lb.sam(SGD, axis_name="group"), {"m": 4, "axis_name": "group"}),
    "micro-batches": (lb.sam(SGD), {"micro_batches": 3}),
}


@pytest.mark.parametrize(
    ("name", "jitted"),
    each(
        [(name, jitted) for name in OVERRIDING for jitted in (False, True)],
        [("groups", True)],
        slow=[(name, False) for name in OVERRIDING if name != "lookbehind"],
    ),
)
def test_an_override_of_apply_gradients_runs(name, jitted):
    tx, options = OVERRIDING[name]
    state = averaging(tx)
    step = train_step if jitted else train_step.__wrapped__
    after, out = step(state, *batch(), **options)
    plain, _ = step(make_state(tx), *batch(), **options)
    chex.assert_trees_all_close(after.params, plain.params, rtol=1e-6)
    chex.assert_trees_all_close(after.batch_stats, plain.batch_stats, rtol=1e-6)
    halfway = jax.tree.map(lambda a, b: (a + b) / 2, state.params, after.params)
    chex.assert_trees_all_close(after.average, halfway, rtol=1e-5, atol=1e-6)
    assert after.seen > 0
    if "m" not in options:  # else the step reports the mean of the groups' norms
        np.testing.assert_allclose(after.seen, out.grad_norm, rtol=1e-6)
    assert after.step == 1
    assert after.tx is tx


class Clipping(TrainState):
    """Changes the gradient, when the step has used it already."""

    def apply_gradients(self, *, grads, **kwargs):
        clipped = jax.tree.map(lambda g: jnp.clip(g, -1e-3, 1e-3), grads)
        return super().apply_gradients(grads=clipped, **kwargs)


def test_an_override_that_changes_the_gradient():
    plain = make_state(SGD)
    state = Clipping.create(
        apply_fn=plain.apply_fn,
        tx=SGD,
        params=plain.params,
        batch_stats=plain.batch_stats,
    )
    with pytest.raises(ValueError, match=r"^grads must reach the optimizer as"):
        train_step(state, *batch())


@pytest.mark.parametrize("name", each(OVERRIDING, ["lookbehind"]))
def test_an_average_stays_where_a_step_overflows(name):
    tx, options = OVERRIDING[name]
    state = averaging(tx)
    x, y = batch()
    bad = x.at[0, 0].set(jnp.inf)
    scale = DynamicScale(scale=2.0)
    after, out = train_step(state, bad, y, dynamic_scale=scale, **options)
    assert not out.finite
    chex.assert_trees_all_equal(after, state.replace(step=jnp.int32(0)))
    after, out = train_step(state, x, y, dynamic_scale=scale, **options)
    assert out.finite
    expected, _ = train_step(state, x, y, **options)
    chex.assert_trees_all_close(after.average, expected.average, rtol=1e-5, atol=1e-6)


def test_a_state_compiles_once():
    """The optimizer that plays the step back isn't part of what comes out."""
    state = averaging(lb.lookbehind_sam(SGD))
    step = jax.jit(lambda state, x, y: train_step.__wrapped__(state, x, y)[0])
    state = step(step(state, *batch()), *batch())
    before = step._cache_size()  # the step's number is no Python integer now
    step(step(state, *batch()), *batch())
    assert step._cache_size() == before <= 2


# Integers in variable collections.


class Counting(nn.Module):
    """Has a counter among its statistics."""

    @nn.compact
    def __call__(self, x):
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(3))
        seen = self.variable("batch_stats", "seen", lambda: jnp.int32(0))
        if not self.is_initializing():
            mean.value = x.mean(0)
            seen.value = seen.value + 1
        return nn.Dense(2)(x)


@pytest.mark.parametrize(
    "options",
    each(
        [{}, {"micro_batches": 3}, {"m": 4, "axis_name": "group"}],
        [{"m": 4, "axis_name": "group"}],
    ),
)
def test_integers_come_from_the_first_part(options):
    model = Counting()
    tx = lb.sam(SGD, axis_name=options.get("axis_name"))
    with jax.numpy_rank_promotion("allow"):
        variables = model.init(jax.random.key(0), batch()[0])
    state = TrainState.create(apply_fn=model.apply, tx=tx, **variables)
    for count in (1, 2):
        state, _ = train_step(state, *batch(), **options)
        assert state.batch_stats["seen"] == count
        mean = batch()[0].mean(0)
        np.testing.assert_allclose(state.batch_stats["mean"], mean, rtol=1e-5)


# Bad input.


def test_frozen_and_new_statistics_beside_a_loss_scale():
    state = make_state(SGD)
    scaled = functools.partial(lb.linen_step, has_aux=True, mutable=["batch_stats"])
    step = jax.jit(
        lambda other, scale: scaled(
            other, make_loss(state), *batch(), dynamic_scale=scale
        )
    )
    for stats in (flax.core.freeze(state.batch_stats), {}):
        other = state.replace(batch_stats=stats)
        with jax.numpy_rank_promotion("allow"):
            after, out = step(other, DynamicScale())
        assert out.finite
        chex.assert_trees_all_equal(after.batch_stats, out.aux["batch_stats"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mutable": "stats"},
            r"with \['stats'\], as mutable says; got the names \['ba",
        ),
        ({"mutable": ()}, r"mutable must name 'batch_stats', .* got \(\)"),
    ],
    ids=["another collection", "none"],
)
def test_statistics_that_would_not_be_kept(options, message):
    state = make_state(SGD)
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match=message):
        lb.linen_step(state, make_loss(state), *batch(), has_aux=True, **options)


def test_an_aux_that_is_no_mapping():
    state = make_state(SGD)

    def loss_fn(params, x, y):
        loss, updates = make_loss(state)(params, x, y)
        return loss, (x, updates)  # logits and updates, as in many loops

    with (
        jax.numpy_rank_promotion("allow"),
        pytest.raises(ValueError, match=r"aux must be a mapping .* got a tuple"),
    ):
        lb.linen_step(state, loss_fn, *batch(), has_aux=True, mutable="batch_stats")


def test_what_is_no_train_state():
    state = make_state(SGD)
    with pytest.raises(
        TypeError, match=r"state must be a TrainState, .* got a function"
    ):
        lb.linen_step(make_loss(state), state, *batch())


def test_parameters_to_be_overwritten():
    state = make_state(SGD)
    params = {**state.params, "_overwrite_with_gradient": {"scale": jnp.ones(1)}}
    with pytest.raises(ValueError, match=r"^params must not hold .*'_overwrite_with"):
        lb.linen_step(state.replace(params=params), make_loss(state), *batch())
