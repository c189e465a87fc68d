"""Schedules inside the base tick once a step; moments and their counts do not wait."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.lenient import lenient
from tests.library.members import each

RATES = [0.1, 0.4, 0.2]
SCHEDULE = lambda count: jnp.array(RATES)[count]

# A base with each kind of clock, and the same one with the value of step t.
CLOCKS = {
    "schedule": (optax.sgd(SCHEDULE), lambda t: optax.sgd(RATES[t])),
    "injected": (
        optax.inject_hyperparams(optax.sgd)(SCHEDULE),
        lambda t: optax.sgd(RATES[t]),
    ),
    "injected and nested": (
        optax.inject_hyperparams(
            lambda scale: optax.chain(optax.sgd(SCHEDULE), optax.scale(scale))
        )(lambda count: 1 / (1.0 + jnp.float32(count))),
        lambda t: optax.chain(optax.sgd(RATES[t]), optax.scale(1 / (1 + t))),
    ),
    "weight decay": (
        optax.chain(optax.add_decayed_weights(SCHEDULE), optax.sgd(0.1)),
        lambda t: optax.chain(optax.add_decayed_weights(RATES[t]), optax.sgd(0.1)),
    ),
    "masked": (
        optax.masked(optax.sgd(SCHEDULE), True),
        lambda t: optax.sgd(RATES[t]),
    ),
}


@pytest.mark.parametrize("k", each([0, 1, 3], [3]))
@pytest.mark.parametrize(
    "name", each(CLOCKS, ["schedule", "injected and nested", "weight decay"])
)
def test_one_tick_a_step(name, k):
    scheduled, constant = CLOCKS[name]
    optimizer = lb.lookbehind_sam(lenient(scheduled), k=k, rho=0.1)
    params = jnp.array([1.0, -2.0])
    state = optimizer.init(params)
    extra = {"grad_fn": lambda p, i: p}
    for t in range(3):
        at_t = lb.lookbehind_sam(constant(t), k=k, rho=0.1)
        expected, _ = at_t.update(params, at_t.init(params), params, **extra)
        updates, state = optimizer.update(params, state, params, **extra)
        np.testing.assert_allclose(updates, expected, rtol=1e-5)
        params = optax.apply_updates(params, updates)
    counts = [n for _, n in optax.tree.get_all_with_path(state.base_state, "count")]
    assert counts
    assert all(count == 3 for count in counts)


def test_a_schedule_with_a_state_of_its_own_ticks_once_a_step():
    class Halving:
        """A stateful schedule, by Optax's protocol."""

        def init(self):
            return jnp.float32(1.0)

        def update(self, state, **extra_args):
            return state / 2

        def __call__(self, state, **extra_args):
            return state

    base = optax.inject_hyperparams(optax.sgd)(Halving())
    optimizer = lb.lookbehind_sam(base, k=3)
    params = jnp.ones(2)
    state = optimizer.init(params)
    for _ in range(2):
        _, state = optimizer.update(params, state, params, grad_fn=lambda p, i: p)
    assert state.base_state.hyperparams_states["learning_rate"] == 0.25


def test_a_cosine_schedule_ends_where_it_should():
    """Not after a k-th of the training, as in an optimizer that is called k times."""
    base = optax.sgd(optax.cosine_decay_schedule(0.1, decay_steps=10))
    optimizer = lb.lookbehind_sam(lenient(base), k=5)
    params = jnp.ones(2)
    state = optimizer.init(params)

    @jax.jit
    def step(state):
        return optimizer.update(params, state, params, grad_fn=lambda p, i: p)

    sizes = []
    for _ in range(11):
        updates, state = step(state)
        sizes.append(float(jnp.linalg.norm(updates)))
    expected = (1 + np.cos(np.pi * np.arange(11) / 10)) / 2
    np.testing.assert_allclose(np.array(sizes) / sizes[0], expected, atol=1e-6)
