"""Lookahead: hand-worked synchronizations, pullback, and the noisy quadratic."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.lenient import lenient
from tests.library.members import each


def run(optimizer, params, gradients):
    """(params, slow weights, state) after each of the given gradients."""
    state = optimizer.init(params)
    for g in gradients:
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
        yield params, lb.eval_params(state, params), state


def test_trajectory_by_hand():
    # Steps of −1: 0 → −1 → −2, back to −1 (α = ½); −2 → −3, back to −2.
    path = run(lb.lookahead(optax.sgd(1.0), k=2), jnp.array(0.0), [jnp.array(1.0)] * 4)
    assert [(float(p), float(s)) for p, s, _ in path] == [
        (-1.0, 0.0),
        (-1.0, -1.0),
        (-2.0, -1.0),
        (-2.0, -2.0),
    ]


def test_k_1_scales_every_step():
    path = run(
        lb.lookahead(optax.sgd(1.0), k=1, alpha=0.25),
        jnp.array(0.0),
        [jnp.array(1.0)] * 3,
    )
    assert [(float(p), float(s)) for p, s, _ in path] == [
        (-0.25, -0.25),
        (-0.5, -0.5),
        (-0.75, -0.75),
    ]


@pytest.mark.parametrize(
    ("pullback", "momenta"),
    [
        # Gradients of 1 and momentum ½: 1, 1.5, 1.75, 1.875, ...
        ("none", [1.0, 1.5, 1.75, 1.875]),
        ("reset", [1.0, 0.0, 1.0, 0.0]),
        # A quarter of the way from the value at the last synchronization.
        ("pullback", [1.0, 0.375, 1.1875, 0.375 + 0.25 * (1.59375 - 0.375)]),
    ],
)
def test_pullback_by_hand(pullback, momenta):
    base = optax.sgd(lambda count: jnp.array([1.0, 1.0, 1.0, 1.0])[count], momentum=0.5)
    optimizer = lb.lookahead(base, k=2, alpha=0.25, pullback=pullback)
    states = [s for _, _, s in run(optimizer, jnp.array(0.0), [jnp.array(1.0)] * 4)]
    traces = [float(optax.tree.get(s.base_state, "trace")) for s in states]
    np.testing.assert_allclose(traces, momenta, rtol=1e-6)
    # Schedules go on.
    assert optax.tree.get(states[-1].base_state, "ScaleByScheduleState").count == 4


def test_reset_is_that_of_optax_but_for_schedules():
    """`optax.lookahead` also starts schedules again."""
    rate = optax.constant_schedule(0.1)
    optimizer = lb.lookahead(lenient(optax.adam(rate)), k=1, pullback="reset")
    *_, (_, _, state) = run(optimizer, jnp.ones(2), [jnp.ones(2)] * 3)
    adam, schedule = state.base_state
    assert schedule.count == 3
    theirs = lenient(optax.lookahead(optax.adam(rate), 1, 0.5, reset_state=True))
    params = optax.LookaheadParams.init_synced(jnp.ones(2))
    theirs_state = theirs.init(params)
    for _ in range(3):
        _, theirs_state = theirs.update(jnp.ones(2), theirs_state, params)
    chex.assert_trees_all_equal(adam, theirs_state.fast_state[0])
    assert adam.count == 0
    chex.assert_trees_all_equal((adam.mu, adam.nu), (jnp.zeros(2), jnp.zeros(2)))


def test_a_key_in_the_base_survives_pullback():
    noisy = lenient(optax.noisy_sgd(0.1, key=jax.random.key(0)))
    optimizer = lb.lookahead(noisy, k=1, pullback="pullback")
    *_, (params, _, _) = run(optimizer, jnp.ones(2), [jnp.ones(2)] * 3)
    assert jnp.isfinite(params).all()


@pytest.mark.parametrize("pullback", ["none", "reset", "pullback"])
def test_flags_shaped_like_parameters(pullback):
    base = optax.chain(optax.zero_nans(), optax.sgd(0.1, momentum=0.9))
    optimizer = lb.lookahead(base, k=1, pullback=pullback)
    *_, (params, _, _) = run(optimizer, jnp.ones(2), [jnp.array([jnp.nan, 1.0])] * 2)
    assert jnp.isfinite(params).all()


@pytest.mark.parametrize(
    "dtype", each(["float16", "bfloat16", "float32"], ["bfloat16"])
)
def test_fast_and_slow_are_the_same_bits_after_synchronizing(dtype):
    key = jax.random.key(0)
    params = jax.random.normal(key, (100,), dtype)
    gradients = jax.random.normal(key, (6, 100), dtype)
    for t, (fast, slow, _) in enumerate(
        run(lb.lookahead(optax.sgd(0.1), k=3), params, gradients)
    ):
        assert bool((fast == slow).all()) == (t % 3 == 2)


def test_alpha_schedule_counts_steps():
    alphas = [0.0, 0.25, 0.5, 1.0]
    optimizer = lb.lookahead(
        optax.sgd(1.0), k=1, alpha=lambda count: jnp.array(alphas)[count]
    )
    path = run(optimizer, jnp.array(0.0), [jnp.array(1.0)] * 4)
    np.testing.assert_allclose([p for p, _, _ in path], -np.cumsum(alphas))


# An optimizer of the slow weights in place of α.


def test_outer_sgd_is_alpha(x64):
    gradients = jax.random.normal(jax.random.key(0), (7, 4))
    base = optax.sgd(0.1, momentum=0.9)
    for pullback in ("none", "reset"):
        alpha = lb.lookahead(base, 3, 0.3, pullback=pullback)
        outer = lb.lookahead(base, 3, outer=optax.sgd(0.3), pullback=pullback)
        for there, here in zip(
            run(alpha, jnp.ones(4), gradients),
            run(outer, jnp.ones(4), gradients),
            strict=True,
        ):
            chex.assert_trees_all_close(here[:2], there[:2], rtol=1e-13)
            chex.assert_trees_all_close(
                here[2].base_state, there[2].base_state, rtol=1e-13
            )


def test_outer_by_hand():
    """DiLoCo's: Nesterov momentum on the way back.

    Steps of −1, two at a time: φ − θ is 2, twice. With a rate of ½ and momentum ½ the
    velocities are 2 and 3, the steps ½ (2 + ½ · 2) and ½ (2 + ½ · 3).
    """
    outer = optax.sgd(0.5, momentum=0.5, nesterov=True)
    optimizer = lb.lookahead(optax.sgd(1.0), k=2, outer=outer)
    path = list(run(optimizer, jnp.array(0.0), [jnp.array(1.0)] * 4))
    assert [(float(p), float(s)) for p, s, _ in path] == [
        (-1.0, 0.0),
        (-1.5, -1.5),
        (-2.5, -1.5),
        (-3.25, -3.25),
    ]
    velocities = [float(optax.tree.get(s.outer_state, "trace")) for *_, s in path]
    assert velocities == [0.0, 2.0, 2.0, 3.0]


def test_outers_schedule_counts_synchronizations():
    rates = [0.5, 0.25, 1.0]
    outer = optax.sgd(lambda count: jnp.array(rates)[count])
    optimizer = lb.lookahead(optax.sgd(1.0), k=2, outer=outer)
    slow = [float(s) for _, s, _ in run(optimizer, jnp.array(0.0), [jnp.ones(())] * 6)]
    assert slow == [0.0, -1.0, -1.0, -1.5, -1.5, -3.5]


def test_outer_sees_the_slow_weights():
    """Weight decay of the outer optimizer is of φ, not of the fast weights."""
    outer = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(1.0))
    optimizer = lb.lookahead(optax.sgd(0.0), k=2, outer=outer)
    path = run(optimizer, jnp.array(8.0), [jnp.array(1.0)] * 4)
    assert [float(p) for p, _, _ in path] == [8.0, 4.0, 4.0, 2.0]


def test_outer_with_reset():
    base = optax.sgd(1.0, momentum=0.5)
    outer = optax.sgd(0.5)
    optimizer = lb.lookahead(base, k=2, outer=outer, pullback="reset")
    path = list(run(optimizer, jnp.array(0.0), [jnp.array(1.0)] * 4))
    assert [float(optax.tree.get(s.base_state, "trace")) for *_, s in path] == [
        1.0,
        0.0,
        1.0,
        0.0,
    ]
    assert [float(p) for p, _, _ in path] == [-1.0, -1.25, -2.25, -2.5]


@pytest.mark.parametrize(
    "dtype", each(["float16", "bfloat16", "float32"], ["bfloat16"])
)
def test_with_outer_fast_and_slow_are_the_same_bits(dtype):
    key = jax.random.key(0)
    params = jax.random.normal(key, (100,), dtype)
    gradients = jax.random.normal(key, (6, 100), dtype)
    outer = optax.sgd(0.7, momentum=0.9, nesterov=True)
    optimizer = lb.lookahead(optax.sgd(0.1), k=3, outer=outer)
    for t, (fast, slow, _) in enumerate(run(optimizer, params, gradients)):
        assert bool((fast == slow).all()) == (t % 3 == 2)
        assert fast.dtype == slow.dtype == dtype


@pytest.mark.parametrize(
    "options",
    [{"alpha": 0.5}, {"alpha": optax.constant_schedule(0.5)}, {"pullback": "pullback"}],
)
def test_outer_beside_alpha(options):
    message = r"^outer takes the place of alpha, .*pass outer=optax\.sgd\(alpha\)\.$"
    with pytest.raises(ValueError, match=message):
        lb.lookahead(optax.sgd(0.1), outer=optax.sgd(0.5), **options)


def test_an_outer_that_isnt_made():
    with pytest.raises(TypeError, match=r"^outer must be .* got <function sgd"):
        lb.lookahead(optax.sgd(0.1), outer=optax.sgd)


def test_alpha_is_a_half_by_default():
    for optimizer in (
        lb.lookahead(optax.sgd(1.0), k=2),
        lb.lookahead(optax.sgd(1.0), k=2, alpha=0.5),
    ):
        *_, (params, _, _) = run(optimizer, jnp.array(0.0), [jnp.array(1.0)] * 2)
        assert params == -1.0


def test_eval_params_finds_the_slow_weights_anywhere():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    moved = jax.tree.map(lambda p: p + 1, params)
    inner = lb.lookahead(optax.sgd(0.1))
    for optimizer in (
        inner,
        optax.chain(optax.clip(1.0), inner),
        optax.MultiSteps(inner, 2),
        optax.apply_if_finite(inner, 3),
        optax.inject_hyperparams(lb.lookahead, static_args=("base", "k"))(
            optax.sgd(0.1)
        ),
        lb.lookahead(lb.lookbehind_sam(optax.sgd(0.1))),
    ):
        state = optimizer.init(params)
        chex.assert_trees_all_equal(lb.eval_params(state, moved), params)
    for optimizer in (optax.adam(0.1), lb.lookbehind_sam(optax.sgd(0.1))):
        state = optimizer.init(params)
        chex.assert_trees_all_equal(lb.eval_params(state, moved), moved)


def test_eval_params_leaf_by_leaf_under_partition():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    optimizer = optax.partition(
        {"slow": lb.lookahead(optax.sgd(0.1)), "plain": optax.sgd(0.1)},
        {"a": "slow", "b": "plain"},
    )
    moved = jax.tree.map(lambda p: p + 1, params)
    got = lb.eval_params(optimizer.init(params), moved)
    chex.assert_trees_all_equal(got, {"a": params["a"], "b": moved["b"]})


@pytest.mark.thorough
def test_variances_on_the_noisy_quadratic():
    """Proposition 2 of Zhang et al. 2019, within what 10 000 samples can tell.

    Losses ½ A (θ − c)² with a new c ~ N(0, Σ²) at each step; every entry of the
    parameters is a run of its own.
    """
    runs, rounds, k, alpha, rate = 10_000, 80, 5, 0.5, 0.1
    curvature = jnp.array([[0.3], [1.0], [5.0]])
    sigma = jnp.array([[1.0], [0.5], [2.0]])

    def variance(optimizer, seed):
        def step(carry, key):
            theta, state = carry
            c = sigma * jax.random.normal(key, theta.shape)
            updates, state = optimizer.update(curvature * (theta - c), state, theta)
            return (optax.apply_updates(theta, updates), state), None

        theta = jnp.zeros((3, runs))
        keys = jax.random.split(jax.random.key(seed), rounds * k)
        (theta, state), _ = jax.lax.scan(step, (theta, optimizer.init(theta)), keys)
        return jnp.mean(lb.eval_params(state, theta) ** 2, axis=1)

    a, s = np.asarray(curvature)[:, 0], np.asarray(sigma)[:, 0]
    decay = 1 - rate * a
    v_sgd = rate**2 * a**2 * s**2 / (1 - decay**2)
    spread = alpha**2 * (1 - decay ** (2 * k))
    v_lookahead = spread / (spread + 2 * alpha * (1 - alpha) * (1 - decay**k)) * v_sgd
    # The mean of n squares of a centred Gaussian has the relative error √(2/n).
    error = np.sqrt(2 / runs)
    with jax.numpy_rank_promotion("allow"):
        sgd = variance(optax.sgd(rate), 0)
        lookahead = variance(lb.lookahead(optax.sgd(rate), k, alpha), 1)
    assert (np.abs(sgd / v_sgd - 1) < 4 * error).all()
    assert (np.abs(lookahead / v_lookahead - 1) < 4 * error).all()
    assert (v_lookahead < (1 - 8 * error) * v_sgd).all()  # the test can tell them apart


@pytest.mark.parametrize(
    "base",
    [
        optax.contrib.schedule_free_sgd(0.1),
        optax.contrib.cocob(),
        optax.contrib.madgrad(0.1),
        lb.lookahead(optax.sgd(0.1)),
    ],
    ids=["schedule_free", "cocob", "madgrad", "lookahead"],
)
def test_a_base_with_a_copy_of_the_parameters(base):
    """It would jump back to where its copy is, after a synchronization."""
    with pytest.raises(TypeError, match=r"^base must not keep a copy of the"):
        lb.lookahead(base).init(jnp.ones(2))
