"""Momentum that comes back with the weights, and how long steps may be then."""

import functools
from typing import Any
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.lenient import lenient
from tests.library.members import each

MOMENTUM = optax.sgd(1.0, momentum=0.5)


def train(optimizer, steps, params=None, grad_fn=lambda p, i: jnp.ones_like(p)):
    """Parameters and state after each step, along gradients of 1 by default."""
    params = jnp.array(0.0) if params is None else params
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(
            grad_fn(params, 0), state, params, grad_fn=grad_fn
        )
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
        yield params, state


def velocity(state):
    return optax.tree.get(state.base_state, "trace")


# Momentum ½ along gradients of 1, k = 2: the velocity goes 1, 1.5 from 0, and the fast
# weights −2.5. With α = ¼ the slow ones follow to −0.625; then, from a velocity of
#   none      1.5:    1.75, 1.875, by −3.625 / 4;
#   pullback  0.375:  1.1875, 1.59375, by −2.78125 / 4, to a quarter of the way back;
#   reset     0:      as before.
BY_HAND = {
    "none": ([-0.625, -0.625 - 0.90625], [1.5, 1.875]),
    "pullback": ([-0.625, -0.625 - 0.6953125], [0.375, 0.6796875]),
    "reset": ([-0.625, -1.25], [0.0, 0.0]),
}


@pytest.mark.parametrize("pullback", BY_HAND)
@pytest.mark.parametrize(
    "alpha",
    each([0.25, lambda count: jnp.array([0.25, 0.25])[count]], [0.25]),
    ids=["static", "scheduled"],
)
def test_trajectory_by_hand(pullback, alpha):
    optimizer = lb.lookbehind_sam(MOMENTUM, k=2, alpha=alpha, pullback=pullback)
    path, velocities = BY_HAND[pullback]
    found = list(train(optimizer, 2))
    np.testing.assert_allclose([p for p, _ in found], path, rtol=1e-6)
    np.testing.assert_allclose([velocity(s) for _, s in found], velocities, rtol=1e-6)


def test_a_scheduled_alpha_is_that_of_the_step():
    """¼ and then 1, which takes nothing back."""
    optimizer = lb.lookbehind_sam(
        MOMENTUM,
        alpha=lambda count: jnp.array([0.25, 1.0])[count],
        pullback="pullback",
    )
    found = [velocity(s) for _, s in train(optimizer, 2)]
    np.testing.assert_allclose(found, [0.375, 1.59375], rtol=1e-6)


def test_by_default_a_kth_of_the_way():
    optimizer = lb.lookbehind_sam(MOMENTUM, k=3, pullback="pullback")
    ((params, state),) = train(optimizer, 1)
    # Velocities 1, 1.5, 1.75.
    np.testing.assert_allclose(params, -4.25 / 3, rtol=1e-6)
    np.testing.assert_allclose(velocity(state), 1.75 / 3, rtol=1e-6)


# Gradients e₁ and then e₂: updates −(1, 0) and −(½, 1), together −(1.5, 1), which has
# the cosine 1.5 / √3.25 with the first.
TURNING = jnp.array([[1.0, 0.0], [0.0, 1.0]])
ADAPTIVE = (1.5 / np.sqrt(3.25) + 1) / 2


def test_adaptive_alpha_takes_back_by_itself():
    optimizer = lb.lookbehind_sam(
        MOMENTUM, alpha=lb.adaptive_alpha(), pullback="pullback"
    )
    ((params, state),) = train(
        optimizer, 1, jnp.zeros(2), grad_fn=lambda p, i: TURNING[i]
    )
    np.testing.assert_allclose(params, -ADAPTIVE * np.array([1.5, 1.0]), rtol=1e-6)
    np.testing.assert_allclose(
        velocity(state), ADAPTIVE * np.array([0.5, 1.0]), rtol=1e-6
    )


def test_alpha_per_tensor_takes_back_the_moments_of_that_tensor():
    optimizer = lb.lookbehind_sam(
        MOMENTUM, alpha=lb.adaptive_alpha(per_tensor=True), pullback="pullback"
    )
    slopes = {"turning": TURNING, "straight": jnp.ones((2, 3))}
    params = {"turning": jnp.zeros(2), "straight": jnp.zeros(3)}
    ((_, state),) = train(
        optimizer, 1, params, lambda p, i: jax.tree.map(lambda s: s[i], slopes)
    )
    trace = velocity(state)
    np.testing.assert_allclose(trace["straight"], 1.5 * np.ones(3), rtol=1e-6)
    np.testing.assert_allclose(
        trace["turning"], ADAPTIVE * np.array([0.5, 1.0]), rtol=1e-6
    )


@pytest.mark.parametrize("pullback", ["none", "pullback", "reset"])
def test_counts_and_schedules(pullback):
    """A schedule counts the steps, Adam k updates a step, from 0 where it is reset."""
    rate = lambda count: jnp.array([0.1, 0.2, 0.3])[count]
    optimizer = lb.lookbehind_sam(
        lenient(optax.adam(rate)), k=3, alpha=0.25, pullback=pullback
    )
    *_, (_, state) = train(optimizer, 2, jnp.ones(2))
    adam, schedule = state.base_state
    assert adam.count == (0 if pullback == "reset" else 6)
    assert schedule.count == 2
    mu, nu = {
        # Of gradients of 1: 1 − 0.9ⁿ and 1 − 0.999ⁿ, a quarter of the way back.
        "none": (1 - 0.9**6, 1 - 0.999**6),
        "pullback": (after_two(0.9), after_two(0.999)),
        "reset": (0.0, 0.0),
    }[pullback]
    np.testing.assert_allclose(adam.mu, np.full(2, mu), rtol=1e-5)
    np.testing.assert_allclose(adam.nu, np.full(2, nu), rtol=1e-4)


@pytest.mark.parametrize("params", [jnp.zeros(3), {"a": jnp.zeros(3)}])
def test_reset_starts_adam_again(params):
    """Along a constant gradient each of its updates is as long as the rate."""
    optimizer = lb.lookbehind_sam(lenient(optax.adam(0.1)), k=4, pullback="reset")
    ones = jax.tree.map(jnp.ones_like, params)
    path = train(optimizer, 5, params, lambda p, i: ones)
    for steps, (found, _) in enumerate(path, start=1):
        (place,) = jax.tree.leaves(found)
        np.testing.assert_allclose(place, np.full(3, -0.1 * steps), rtol=1e-5)


RESET = {
    "masked": optax.masked(optax.adam(0.1), {"a": True, "b": False}),
    "partition": optax.partition(
        {"adam": optax.adam(0.1), "sgd": optax.sgd(0.1)}, {"a": "adam", "b": "sgd"}
    ),
    "injected": optax.inject_hyperparams(optax.adam)(0.1),
    "schedule": optax.adam(optax.constant_schedule(0.1)),
    "noise": optax.chain(optax.adam(0.1), optax.add_noise(0.1, 0.5, 3)),
    "sharpness-aware": lb.sam(optax.adam(0.1), rho=optax.constant_schedule(0.1)),
}


class Anchored(NamedTuple):
    anchor: Any


def test_reset_starts_a_base_from_where_the_weights_are():
    """Its initial state may depend on them."""

    def update(updates, state, params=None):
        return optax.tree.scale(-1.0, updates), state

    base = optax.GradientTransformation(Anchored, update)
    optimizer = lb.lookbehind_sam(base, rho=0.0, k=2, alpha=0.25, pullback="reset")
    way = [(params, state.base_state.anchor) for params, state in train(optimizer, 2)]
    assert way == [(-0.5, -0.5), (-1.0, -1.0)]  # two updates of -1, and a quarter


@pytest.mark.parametrize("name", RESET)
def test_reset_starts_no_other_count_again(name):
    optimizer = lb.lookahead(lenient(RESET[name]), k=2, pullback="reset")
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    *_, (_, state) = train(optimizer, 2, params, lambda p, i: p)
    counts = optax.tree.get_all_with_path(state.base_state, "count")
    assert any("ScaleByAdamState" in str(path) for path, _ in counts)
    for path, count in counts:
        assert count == (0 if "ScaleByAdamState" in str(path) else 2)


COUNTED = {
    "adam": optax.adam(0.1),
    "adan": optax.adan(0.1),
    "ademamix": optax.contrib.ademamix(0.1),
    "simplified ademamix": optax.contrib.simplified_ademamix(0.1),
    "optimistic": optax.optimistic_gradient_descent(0.1),
    "optimistic adam": optax.optimistic_adam_v2(0.1),
    "inside a projection": optax.contrib.galore(0.1),
    "of factors": optax.sm3(0.1),
}


@pytest.mark.parametrize("name", each(COUNTED, ["adan", "optimistic"]))
def test_reset_restores_all_that_counts_moments(name):
    """Whatever the base calls it, and wherever it keeps it."""
    optimizer = lb.lookahead(lenient(COUNTED[name]), k=3, pullback="reset")
    start = jnp.arange(1.0, 13).reshape(3, 4)
    *_, (params, state) = train(optimizer, 3, start, lambda p, i: p)
    assert not jnp.allclose(params, start)
    chex.assert_trees_all_equal(state.base_state, optimizer.init(params).base_state)


class Own(NamedTuple):
    moment: Any
    steps: Any
    key: Any


@pytest.mark.parametrize(
    "make",
    [Own, lambda *parts: parts, lambda m, n, key: {"a": m, "b": n, "c": key}],
    ids=["named", "tuple", "dict"],
)
def test_reset_restores_the_numbers_of_any_state_but_no_key(make):
    def init(params):
        return make(optax.tree.zeros_like(params), jnp.int32(0), jax.random.key(0))

    def update(updates, state, params=None):
        _, steps, key = state.values() if isinstance(state, dict) else state
        return updates, make(updates, steps + 1, jax.random.split(key)[0])

    base = optax.GradientTransformation(init, update)
    optimizer = lb.lookahead(base, k=2, pullback="reset")
    params = {"a": jnp.ones(2), "frozen": None}
    *_, (_, state) = train(optimizer, 2, params, lambda p, i: p)
    key = jax.random.key(0)
    for _ in range(2):
        key = jax.random.split(key)[0]
    wanted = make({"a": jnp.zeros(2), "frozen": None}, jnp.int32(0), key)
    chex.assert_trees_all_equal(state.base_state, wanted)


def test_reset_leaves_a_wrappers_clock_alone_if_all_it_holds_are_moments():
    def momentum(rate):
        def update(updates, state, params=None):
            return optax.tree.scale(-rate, updates), updates

        return optax.GradientTransformation(optax.tree.zeros_like, update)

    base = optax.inject_hyperparams(momentum)(rate=optax.constant_schedule(0.1))
    optimizer = lb.lookahead(base, k=2, pullback="reset")
    *_, (_, state) = train(optimizer, 2, jnp.ones(2), lambda p, i: p)
    assert state.base_state.count == 2
    np.testing.assert_array_equal(state.base_state.inner_state, np.zeros(2))


def test_reset_keeps_keys_like_the_parameters():
    def update(updates, state, params=None):
        return updates, jax.tree.map(lambda key: jax.random.split(key)[0], state)

    init = functools.partial(jax.tree.map, lambda _: jax.random.key(0))
    optimizer = lb.lookahead(
        optax.GradientTransformation(init, update), k=1, pullback="reset"
    )
    *_, (_, state) = train(optimizer, 1, {"a": jnp.ones(2)}, lambda p, i: p)
    assert state.base_state["a"] == jax.random.split(jax.random.key(0))[0]


def test_reset_keeps_the_states_dtypes():
    """Whatever those of the parameters are now."""

    def init(params):
        dtype = getattr(params, "dtype", jnp.float32)  # Optax probes it without arrays
        moment = optax.tree.zeros_like(params)
        return Own(moment, jnp.zeros([], dtype), jax.random.key(0))

    def update(updates, state, params=None):
        return updates, state

    base = optax.GradientTransformation(init, update)
    optimizer = lb.lookbehind_sam(base, rho=0.0, pullback="reset")
    state = optimizer.init(jnp.ones(2))
    params = jnp.ones(2, jnp.bfloat16)
    _, state = optimizer.update(params, state, params, grad_fn=lambda p, i: p)
    assert state.base_state.moment.dtype == state.base_state.steps.dtype == jnp.float32


ESTIMATES = {
    "DAdaptAdamW": optax.contrib.dadapt_adamw(),
    "DoG": optax.contrib.dog(),
    "DoWG": optax.contrib.dowg(),
    "ScaleByDistanceOverGradients": optax.scale_by_distance_over_gradients(),
    "Mechanic": optax.contrib.mechanize(optax.sgd(0.1)),
    "Prodigy": optax.contrib.prodigy(),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_reset_refuses_estimates_of_the_learning_rate(name):
    """Its initial values would be those of no estimate: nothing would be learned."""
    for method in (lb.lookahead, lb.lookbehind_sam):
        optimizer = method(ESTIMATES[name], pullback="reset")
        with pytest.raises(TypeError, match=f"reset.* has a {name}State"):
            list(train(optimizer, 1))


def test_lookahead_refuses_to_continue_with_a_reset():
    params, base = jnp.ones(2), optax.contrib.prodigy()
    state = lb.lookahead(base).init(params)
    with pytest.raises(TypeError, match=r"reset.* has a ProdigyState"):
        lb.lookahead(base, pullback="reset").update(params, state, params)


@pytest.mark.parametrize(
    "base",
    [
        optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation(),
        optax.apply_every(4),
    ],
    ids=["MultiSteps", "apply_every"],
)
def test_sums_over_steps_are_not_taken_back(base):
    """Nothing would be learned after a reset every two steps."""
    for pullback in ("reset", "pullback"):
        for method in (lb.lookahead, lb.lookbehind_sam):
            optimizer = method(lenient(base), k=2, pullback=pullback)
            with pytest.raises(TypeError, match=f"sum gradients .*{pullback}"):
                list(train(optimizer, 1))


def after_two(decay):
    """A moment of ones after two steps of k = 3, each a quarter of the way."""
    moment = 0.0
    for _ in range(2):
        moment += (1 - (1 - moment) * decay**3 - moment) / 4
    return moment


@pytest.mark.parametrize("pullback", each(["none", "pullback", "reset"], ["pullback"]))
def test_flags_keys_and_holes_in_the_base(pullback):
    """What has the shape of parameters without being a number stays, as keys do."""
    base = optax.chain(
        optax.zero_nans(),
        optax.masked(optax.trace(0.9), {"a": True, "b": False}),
        lenient(optax.noisy_sgd(0.1, key=jax.random.key(0))),
    )
    optimizer = lb.lookbehind_sam(base, pullback=pullback)
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    *_, (params, state) = train(optimizer, 2, params, lambda p, i: p)
    assert all(jnp.isfinite(p).all() for p in params.values())
    fresh = optimizer.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(fresh)
    types = lambda tree: [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]
    assert types(state) == types(fresh)


def test_moments_of_groups_come_back_as_one():
    """m-SAM: one velocity, with an adaptive α as well."""
    optimizer = lb.lookbehind_sam(
        MOMENTUM, alpha=lb.adaptive_alpha(), pullback="pullback", axis_name="group"
    )
    slopes = jnp.stack([TURNING - 0.5, TURNING + 0.5])  # their mean is TURNING
    params = jnp.zeros(2)

    def update(slopes):
        _, state = optimizer.update(
            slopes[0], optimizer.init(params), params, grad_fn=lambda p, i: slopes[i]
        )
        return state

    in_groups = jax.vmap(update, out_axes=None, axis_name="group")
    state = jax.jit(in_groups)(slopes)
    np.testing.assert_allclose(
        velocity(state), ADAPTIVE * np.array([0.5, 1.0]), rtol=1e-6
    )


# How long a step may be: on ½ p², without a climb (ρ = 0), a step is a linear map of
# the weight and its velocity, and stable while its spectral radius is at most one.


def step_matrix(make):
    """From learning rates to the linear map of a step, as the optimizer takes it."""

    def step(rate, start):
        optimizer = optax.with_extra_args_support(make(rate))
        p, v = start
        state = optax.tree.set(optimizer.init(p), trace=v)
        updates, state = optimizer.update(p, state, p, grad_fn=lambda p, i: p)
        return jnp.stack([p + updates, optax.tree.get(state, "trace")])

    at = jax.vmap(step, in_axes=(None, 0), out_axes=1)
    return jax.jit(lambda rate: at(jnp.float64(rate), jnp.eye(2)))


def limit(make):
    """The matrix as a function of the rate, and the largest stable rate, to 1e-9."""
    matrix = step_matrix(make)
    low, high = 0.0, next(r for r in np.arange(0.01, 8, 0.01) if radius(matrix(r)) > 1)
    while high - low > 1e-9:
        middle = (low + high) / 2
        stable = radius(matrix(middle)) <= 1
        low, high = (middle, high) if stable else (low, middle)
    return matrix, low


def radius(matrix):
    return np.abs(np.linalg.eigvals(np.asarray(matrix))).max()


def lookbehind(rate, k, alpha, pullback):
    base = optax.sgd(rate, momentum=0.9)
    return lb.lookbehind_sam(base, 0.0, k, alpha, pullback=pullback)


# By pullback and α (None is 1/k): k and the largest stable rate times the curvature.
LIMITS = {
    ("none", None): {1: 3.8, 2: 0.42, 3: 0.32, 5: 0.28, 10: 0.27},
    ("none", 1.0): {1: 3.8, 2: 0.21, 3: 0.11, 5: 0.06, 10: 0.03},
    ("pullback", None): {1: 3.8, 2: 1.95, 3: 1.35, 5: 0.86, 10: 0.51},
    ("pullback", 1.0): {1: 3.8, 2: 0.21, 3: 0.11, 5: 0.06, 10: 0.03},
    ("reset", None): {1: 2.0, 2: 1.38, 3: 1.07, 5: 0.76, 10: 0.48},
}


@pytest.mark.parametrize(("pullback", "alpha"), each(LIMITS, [("pullback", None)]))
def test_the_largest_stable_rate(pullback, alpha, x64):
    for k, wanted in LIMITS[pullback, alpha].items():
        make = functools.partial(lookbehind, k=k, alpha=alpha, pullback=pullback)
        matrix, found = limit(make)
        assert round(found, 2) == wanted
        assert radius(matrix(0.99 * found)) < 1 < radius(matrix(1.01 * found))


def test_the_largest_stable_rate_of_the_base(x64):
    """2 (1 + β), as the classics have it."""
    _, found = limit(lambda rate: optax.sgd(rate, momentum=0.9))
    np.testing.assert_allclose(found, 3.8, rtol=1e-8)


def test_pullback_trains_where_none_diverges(x64):
    """At a rate of 1, half of 1.95, by the optimizer's own steps."""
    sizes = {}
    for pullback in ("none", "pullback"):
        optimizer = lookbehind(1.0, 2, None, pullback)
        *_, (params, _) = train(optimizer, 60, jnp.array(1.0), lambda p, i: p)
        sizes[pullback] = abs(float(params))
    assert sizes["pullback"] < 0.05
    assert sizes["none"] > 100
