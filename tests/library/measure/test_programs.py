"""When programs are compiled, and how long they are kept."""

import gc
import inspect
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lookbehind_optax import measure
from tests.library import members

BATCHES = [jnp.arange(1.0, 5.0), jnp.arange(1.0, 5.0), jnp.arange(1.0, 3.0)]

# Each as a function of the losses and of parameters of shape (2,).
MEASURES = {
    "mean": lambda f, w: measure.mean(f, w, BATCHES),
    "sharpness": lambda f, w: (
        measure.sharpness(f, w, BATCHES, [0.1, 0.2], m=3, steps=2).sharpness
    ),
    "climb": lambda f, w: measure.climb(f, w, BATCHES[0], 0.1, k=3).losses,
    "hessian_vector_product": lambda f, w: measure.hessian_vector_product(
        f, w, jnp.ones(2), BATCHES
    ),
    "hessian_eigenvalues": lambda f, w: (
        measure.hessian_eigenvalues(f, w, BATCHES).values
    ),
    "hessian_trace": lambda f, w: measure.hessian_trace(f, w, BATCHES, draws=3).mean,
    "hessian_spectrum": lambda f, w: (
        measure.hessian_spectrum(f, w, BATCHES, draws=2).nodes
    ),
    "line": lambda f, w: (
        measure.line(f, w, jnp.ones(2), jnp.array([0.5, 1.0]), BATCHES).values
    ),
    "plane": lambda f, w: (
        measure.plane(
            f, w, (jnp.ones(2), w), jnp.array([0.5, 1.0]), jnp.ones(1), BATCHES
        ).values
    ),
    "weight_noise": lambda f, w: measure.weight_noise(f, w, BATCHES, [0.1, 0.2]).values,
}
# Sharpness needs the losses with their gradient, and without at the end of an ascent.
PROGRAMS = {"sharpness": 2}


# For `make test`: the one with most programs.
each = pytest.mark.parametrize("name", members.each(MEASURES, ["sharpness"]))


def test_these_are_all_measures_of_a_function():
    first = {
        name: next(iter(inspect.signature(value).parameters), "")
        for name, value in vars(measure).items()
        if inspect.isfunction(value)
    }
    assert set(MEASURES) == {n for n, p in first.items() if p.endswith("s_fn")}


class Losses:
    """x scale |w|⁴, with the number of times it was traced."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self.traced = 0

    def of(self, w, x):
        self.traced += 1
        return self.scale * x * jnp.sum(w**2) ** 2


scale = 1.0


def global_losses(w, x):
    return scale * x * jnp.sum(w**2) ** 2


@each
def test_a_global_may_change(name, monkeypatch):
    once = MEASURES[name](global_losses, jnp.ones(2))
    monkeypatch.setitem(globals(), "scale", 2.0)
    twice = MEASURES[name](global_losses, jnp.ones(2))
    np.testing.assert_allclose(
        twice, MEASURES[name](Losses(2.0).of, jnp.ones(2)), rtol=1e-6
    )
    assert np.all(np.abs(twice) > 1.5 * np.abs(once))


@each
def test_an_attribute_may_change(name):
    losses = Losses(1.0)
    once = MEASURES[name](losses.of, jnp.ones(2))
    losses.scale = 2.0
    twice = MEASURES[name](losses.of, jnp.ones(2))
    assert np.all(np.abs(twice) > 1.5 * np.abs(once))


@each
def test_each_measurement_compiles_once(name):
    losses = Losses()
    for epoch in range(1, 4):
        MEASURES[name](losses.of, epoch * jnp.ones(2))
        assert losses.traced == epoch * PROGRAMS.get(name, 1)


@each
def test_a_compiled_function_compiles_once_in_all(name):
    losses = Losses()
    compiled = measure.compiled(losses.of)
    for epoch in range(1, 4):
        found = MEASURES[name](compiled, epoch * jnp.ones(2))
        fresh = MEASURES[name](Losses().of, epoch * jnp.ones(2))
        np.testing.assert_array_equal(found, fresh)
    assert losses.traced == PROGRAMS.get(name, 1)


@each
def test_nothing_is_kept(name):
    client = jax.devices()[0].client

    def measured():
        losses = Losses()
        MEASURES[name](losses.of, jnp.ones(2))
        return weakref.ref(losses)

    measured()  # which leaves programs of the library's own
    gc.collect()
    before = len(client.live_executables())
    reference = measured()
    gc.collect()
    assert reference() is None
    assert len(client.live_executables()) <= before


def test_programs_are_kept_as_long_as_the_compiled_function():
    client = jax.devices()[0].client
    losses = Losses()
    MEASURES["sharpness"](losses.of, jnp.ones(2))
    gc.collect()
    before = len(client.live_executables())
    compiled = measure.compiled(losses.of)
    MEASURES["sharpness"](compiled, jnp.ones(2))
    assert len(client.live_executables()) == before + 2
    reference = weakref.ref(losses)
    del compiled, losses
    gc.collect()
    assert reference() is None
    assert len(client.live_executables()) == before


def test_a_compiled_function_freezes_what_it_reads():
    losses = Losses(1.0)
    compiled = measure.compiled(losses.of)
    once = measure.mean(compiled, jnp.ones(2), BATCHES)
    losses.scale = 2.0
    np.testing.assert_array_equal(measure.mean(compiled, jnp.ones(2), BATCHES), once)
    again = measure.mean(measure.compiled(losses.of), jnp.ones(2), BATCHES)
    np.testing.assert_allclose(again, 2 * once)


def test_a_compiled_function_is_the_function():
    losses = measure.compiled(Losses(3.0).of)
    np.testing.assert_allclose(losses(jnp.ones(2), jnp.ones(1)), [12.0])
    assert measure.compiled(losses) is losses


# Directions and estimators of statistics are functions of the user's, too.


class Along:
    """A direction along one coordinate, with the number of times it was traced."""

    def __init__(self, coordinate):
        self.coordinate = coordinate
        self.traced = 0

    def update(self, grads, state, params=None):
        self.traced += 1
        return jnp.zeros_like(grads).at[self.coordinate].set(1.0), state

    @property
    def direction(self):
        return optax.GradientTransformation(lambda p: optax.EmptyState(), self.update)


DIRECTED = {
    "sharpness": lambda d: measure.sharpness(
        lambda w, x: x * w[0], jnp.zeros(2), [jnp.ones(2)], 0.5, steps=2, direction=d
    ).sharpness[0],
    "climb": lambda d: measure.climb(
        lambda w, x: x * w[0], jnp.zeros(2), jnp.ones(2), 0.25, k=2, direction=d
    ).losses[-1],
}


@pytest.mark.parametrize("name", DIRECTED)
def test_a_direction_may_change(name):
    along = Along(0)
    direction = along.direction
    np.testing.assert_allclose(DIRECTED[name](direction), 0.5)
    along.coordinate = 1
    np.testing.assert_allclose(DIRECTED[name](direction), 0.0)
    assert along.traced == 2


@pytest.mark.parametrize("name", DIRECTED)
def test_a_compiled_direction(name):
    along = Along(0)
    direction = along.direction
    direction = direction._replace(update=measure.compiled(direction.update))
    for _ in range(3):
        np.testing.assert_allclose(DIRECTED[name](direction), 0.5)
    assert along.traced == 1


@pytest.mark.parametrize("name", DIRECTED)
def test_a_direction_has_a_state(name):
    """One that goes forth and back ends where it began."""
    direction = optax.GradientTransformation(
        lambda p: jnp.float32(1.0),
        lambda g, sign, p=None: (sign * jnp.array([1.0, 0.0]), -sign),
    )
    np.testing.assert_allclose(DIRECTED[name](direction), 0.0)


def test_an_estimator_of_statistics():
    traced = []

    def reestimate(w, statistics, x):
        traced.append(x.shape)
        return statistics + 1

    def noise(reestimate):
        return measure.weight_noise(
            lambda w, statistics, x: statistics * x,
            jnp.ones(()),
            [jnp.ones(2)],
            [0.1, 0.2],
            statistics=jnp.float32(0.0),
            reestimate=reestimate,
            training_batches=[jnp.ones(3)] * 2,
        )

    np.testing.assert_allclose(noise(reestimate).values, 2.0)
    noise(reestimate)
    assert len(traced) == 2
    compiled = measure.compiled(reestimate)
    noise(compiled)
    noise(compiled)
    assert len(traced) == 3
