"""Learning rates, phases, and optimizers by name."""

from dataclasses import replace
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples.images.config import Config
from examples.trainer.optimizers import make_base
from examples.trainer.optimizers import make_phases
from examples.trainer.optimizers import make_schedule
from examples.trainer.optimizers import MEMBERS
from examples.trainer.optimizers import OPTIONS
from examples.trainer.optimizers import STATEFUL
import lookbehind_optax as lb

LATE = Config(
    learning_rate=0.4,
    epochs=10,
    phases=("base until 0.6", "sam until 1"),
    anneal="each",
)


def rates(config, steps, steps_per_epoch=10):
    schedule = make_schedule(config, steps_per_epoch)
    return [float(schedule(step)) for step in steps]


def phases_of(config, steps_per_epoch=10):
    return make_phases(config, make_base(config, 0.1), steps_per_epoch)


# Learning rates.


def test_schedules():
    config = Config(learning_rate=0.05, epochs=6)
    step = replace(config, schedule="step", drop_every=2)
    expected = [0.05, 0.05, 5e-3, 5e-3, 5e-4, 5e-4]
    found = rates(step, [0, 19, 20, 39, 40, 59])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    cosine = rates(replace(config, warmup=1.0), [0, 5, 10, 35, 60])
    np.testing.assert_allclose(cosine, [0, 0.025, 0.05, 0.025, 0], atol=1e-8)
    root = replace(config, schedule="inverse-sqrt", epochs=9, warmup=2.0)
    found = rates(root, [0, 10, 20, 80])
    np.testing.assert_allclose(found, [0, 0.025, 0.05, 0.025], atol=1e-8)


def test_each_phase_has_a_cosine_of_its_own():
    # 60 steps and 40: at the peak, half-way, and one step before the end.
    last = [0.2 * (1 + np.cos(np.pi * at)) for at in (59 / 60, 39 / 40)]
    found = rates(LATE, [0, 30, 59, 60, 80, 99, 100])
    expected = [0.4, 0.2, last[0], 0.4, 0.2, last[1], 0.0]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_warmup_belongs_to_the_first_phase():
    # Up in 20 steps, down in 40; then down in 40 from the peak.
    found = rates(replace(LATE, warmup=2.0), [0, 10, 20, 40, 60, 80, 100])
    np.testing.assert_allclose(found, [0, 0.2, 0.4, 0.2, 0.4, 0.2, 0], atol=1e-7)


def test_each_phase_drops_by_its_own_epochs():
    step = replace(LATE, schedule="step", drop_every=3)
    found = rates(step, [0, 29, 30, 59, 60, 89, 90, 99])
    expected = [0.4, 0.4, 0.04, 0.04, 0.4, 0.4, 0.04, 0.04]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # Epochs of the first phase are counted with the warm-up.
    warm = rates(replace(step, warmup=1.0), [10, 29, 30, 60, 89, 90])
    np.testing.assert_allclose(warm, [0.4, 0.4, 0.04, 0.4, 0.4, 0.04], rtol=1e-6)


def test_each_phase_falls_with_the_square_root_of_its_own_steps():
    root = replace(LATE, schedule="inverse-sqrt", warmup=1.0)
    found = rates(root, [0, 10, 40, 60, 90])  # the warm-up is 10 steps
    np.testing.assert_allclose(found, [0, 0.4, 0.2, 0.4, 0.2], rtol=1e-6)


def test_a_phase_may_be_shorter_than_a_step():
    config = replace(LATE, epochs=1, phases=("base until 0.99", "sam until 1"))
    found = rates(config, [0, 9], steps_per_epoch=10)
    np.testing.assert_allclose(found[0], 0.4)
    assert 0 < found[1] < 0.02


# Phases.


def test_phases_end_where_they_should_and_cost_what_they_cost():
    config = Config(
        epochs=10,
        k=3,
        phases=("base until 0.5", "sam until 0.8", "lookbehind_sam until 1"),
    )
    assert [(p.name, p.until, p.gradients) for p in phases_of(config)] == [
        ("base", 50, 1),
        ("sam", 80, 2),
        ("lookbehind_sam", 100, 4),
    ]


def gradient(params, i):
    del i
    return jnp.array([1.0, 4.0]) * params


def train(phases, params):
    """One step with each phase, of a quadratic."""
    state = phases[0].optimizer.init(params)
    updating = {
        phase.optimizer: jax.jit(
            functools.partial(phase.optimizer.update, grad_fn=gradient)
        )
        for phase in phases
    }
    for phase in phases:
        update = updating[phase.optimizer]
        updates, state = update(gradient(params, 0), state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("name", STATEFUL)
def test_a_phase_whose_direction_has_a_state_may_come_later(name):
    config = Config(phases=("base until 0.3", f"{name} until 0.6", "base until 1"))
    assert np.isfinite(train(phases_of(config), jnp.array([3.0, 1.0]))).all()


def test_every_phase_can_follow_any_other():
    names = ["base", *sorted(MEMBERS.keys() - {*STATEFUL})]
    for name, other in zip(names, [*names[1:], "base"], strict=True):
        config = Config(phases=(f"{name} until 0.5", f"{other} until 1"))
        assert np.isfinite(train(phases_of(config), jnp.array([3.0, 1.0]))).all()


# Options.


@functools.cache
def by_default():
    return train(phases_of(Config()) * 3, jnp.array([3.0, 1.0]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"optimizer": "gsam", "alpha": 0.3, "rho": 0.2},
            lambda base: lb.gsam(base, 0.2, 0.3),
        ),
        (
            {"optimizer": "wsam", "gamma": 0.5, "rho": 0.2},
            lambda base: lb.wsam(base, 0.2, 0.5),
        ),
        (
            {"optimizer": "friendly_sam", "sigma": 0.5, "decay": 0.8, "rho": 0.2},
            lambda base: lb.friendly_sam(base, 0.2, 0.5, 0.8),
        ),
        (
            {"optimizer": "lookbehind_sam", "pullback": "pullback", "alpha": 0.3},
            lambda base: lb.lookbehind_sam(base, alpha=0.3, pullback="pullback"),
        ),
        (
            {"optimizer": "lookbehind_asam", "pullback": "reset", "eta": 0.1},
            lambda base: lb.lookbehind_asam(base, eta=0.1, pullback="reset"),
        ),
        (
            {"optimizer": "sam", "lookahead": 2, "lookahead_alpha": 0.25},
            lambda base: lb.lookahead(lb.sam(base), 2, 0.25),
        ),
    ],
)
def test_options_reach_the_optimizer(options, expected):
    config = Config(**options)
    base = make_base(config, 0.1)
    (phase,) = make_phases(config, base, 10)
    params = jnp.array([3.0, 1.0])
    found = train([phase] * 3, params)
    wanted = train([phase._replace(optimizer=expected(base))] * 3, params)
    np.testing.assert_array_equal(found, wanted)
    assert not np.array_equal(found, by_default())


def test_every_option_is_one_of_an_optimizer_and_of_the_configuration():
    known = [inspect.signature(member).parameters for member in MEMBERS.values()]
    for option, default in OPTIONS.items():
        assert any(option in parameters for parameters in known)
        assert getattr(Config(), option) == default


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "yogi"])
def test_every_base_decays_weights(name):
    """Where the gradient is zero, only the decay moves them."""
    base = make_base(Config(base=name, weight_decay=0.1), 0.1)
    params, none = jnp.ones(2), jnp.zeros(2)
    updates, _ = base.update(none, base.init(params), params)
    assert (updates < 0).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "sma"}, r"^--optimizer must be base or one of sam, .* got sma"),
        ({"base": "nothing"}, r"^--base must name an optimizer of Optax.* got nothing"),
        ({"base": "schedule_free_sgd"}, r"^--base must train the weights that are ev"),
        ({"base": "adam", "momentum": 0.5}, r"^--momentum applies only to sgd; got a"),
        ({"optimizer": "sam", "k": 3}, r"^--k doesn't apply to sam$"),
        ({"optimizer": "sam", "eta": 0.1}, r"^--eta doesn't apply to sam$"),
        ({"optimizer": "base", "rho": 0.1}, r"^--rho doesn't apply to base$"),
        ({"optimizer": "sam", "gamma": 0.5}, r"^--gamma doesn't apply to sam$"),
        ({"optimizer": "wsam", "sigma": 0.5}, r"^--sigma doesn't apply to wsam$"),
        (
            {"optimizer": "gsam", "pullback": "reset"},
            r"^--pullback doesn't apply to",
        ),
        (
            {"optimizer": "sam", "reuse_gradients": False},
            r"^--reuse-gradients doesn't apply to",
        ),
        ({"average": True}, r"^--average doesn't apply to lookbehind_sam$"),
        (
            {"optimizer": "gsam", "alpha": "adaptive"},
            r"^--alpha must be a number for gsam",
        ),
        (
            {"phases": ("friendly_sam until 0.5", "sam until 1")},
            r"^--phases can combine friendly_sam only with base.* friendly_sam, sam$",
        ),
        ({"lookahead_alpha": 0.8}, r"^--lookahead-alpha needs a --lookahead of one"),
        ({"phases": ("base until 0.8",)}, r"^the last of --phases must be until 1"),
        ({"phases": ("base", "sam until 1")}, r"^--phases must look like"),
        ({"phases": ("base until 1", "sam until 0.5")}, r"^--phases must look like"),
        (
            {"phases": ("base until 0.5", "sam until 1"), "optimizer": "asam"},
            r"^--phases take the place of --optimizer; got both, asam and 'base until",
        ),
    ],
)
def test_what_it_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        phases_of(Config(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"schedule": "inverse-sqrt", "warmup": 0.0},
            r"^--schedule inverse-sqrt needs a",
        ),
        (
            {"phases": ()},
            r"^--anneal each needs two or more .* got 1 and cosine",
        ),
        ({"schedule": "constant"}, r"^--anneal each needs .* got 2 and constant"),
        (
            {"warmup": 6.5},
            r"^--warmup must end within the first of --phases, of 6 epochs; got 6\.5$",
        ),
        (
            {"warmup": 11, "anneal": "all"},
            r"^--warmup must end within --epochs, of 10 epochs; got 11$",
        ),
    ],
)
def test_learning_rates_that_it_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(replace(LATE, **values), 10)
