"""Descents: worked by hand, one of a user's own, and with any direction."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library import reference
from tests.library.members import each

SGD = optax.sgd(0.1)


def grad(p):
    """Of ½ (p₁² + 4 p₂²)."""
    return jnp.array([1.0, 4.0]) * p


def step(descent, params, grads, base=SGD, rho=0.5, k=1, **extra):
    optimizer = lb.sharpness_aware(base, lb.sam_direction(), descent, rho, k)
    extra = extra or {"grad_fn": lambda p, i: grad(p)}
    return optimizer.update(grads, optimizer.init(params), params, **extra)


# From (3, 1) the gradient is (3, 4), and half a unit uphill are (3.3, 1.4), where it is
# (3.3, 5.6).
G, G_S = np.array([3.0, 4.0]), np.array([3.3, 5.6])
ORTHOGONAL = G - (3 * 3.3 + 4 * 5.6) / (3.3**2 + 5.6**2) * G_S
BY_HAND = {
    "last": (lb.last_descent(), G_S),
    "mean": (lb.mean_descent(), G_S),
    "every": (lb.every_descent(), G_S),
    "surrogate gap": (lb.surrogate_gap_descent(), G_S - 0.4 * ORTHOGONAL),
    "surrogate gap, 0": (lb.surrogate_gap_descent(0.0), G_S),
    "surrogate gap, 2": (lb.surrogate_gap_descent(2.0), G_S - 2 * ORTHOGONAL),
    "weighted": (lb.weighted_descent(), G + 9 * (G_S - G)),
    "weighted, 0": (lb.weighted_descent(0.0), G),
    "weighted, 1/2": (lb.weighted_descent(0.5), G_S),
    "weighted, 3/4": (lb.weighted_descent(0.75), 3 * G_S - 2 * G),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_step_by_hand(name):
    descent, along = BY_HAND[name]
    updates, _ = step(descent, jnp.array([3.0, 1.0]), jnp.array(G, jnp.float32))
    np.testing.assert_allclose(updates, -0.1 * along, rtol=1e-5)


def test_what_gsam_takes_off_is_orthogonal_and_keeps_the_perturbed_loss():
    """To first order; where the two gradients are parallel, there is nothing."""
    np.testing.assert_allclose(ORTHOGONAL @ G_S, 0, atol=1e-12)
    params = jnp.array([3.0, 4.0])  # of ½ p², whose gradients are parallel
    extra = {"grad_fn": lambda p, i: p}
    gsam, _ = step(lb.surrogate_gap_descent(5.0), params, params, **extra)
    sam, _ = step(lb.last_descent(), params, params, **extra)
    np.testing.assert_allclose(gsam, sam, rtol=1e-6)


def test_gsam_where_the_perturbed_gradient_is_zero():
    """All of the clean gradient is orthogonal to it then; no NaN."""
    grads = jnp.array([3.0, 4.0])
    extra = {"grad_fn": lambda p, i: jnp.zeros(2)}
    updates, _ = step(lb.surrogate_gap_descent(0.4), jnp.ones(2), grads, **extra)
    np.testing.assert_allclose(updates, 0.1 * 0.4 * grads, rtol=1e-6)


def test_gsam_schedules_count_steps():
    alphas = [0.0, 1.0, 2.0]
    optimizer = lb.gsam(SGD, 0.5, lambda count: jnp.array(alphas)[count])
    params = jnp.array([3.0, 1.0])
    state = optimizer.init(params)
    for alpha in alphas:
        updates, state = optimizer.update(
            jnp.array(G, jnp.float32), state, params, grad_fn=lambda p, i: grad(p)
        )
        np.testing.assert_allclose(
            updates, -0.1 * (G_S - alpha * ORTHOGONAL), rtol=1e-5
        )


def test_complex_gradients():
    """Inner products are those of the plane: GSAM of ℂ is GSAM of ℝ²."""
    params = jnp.array([3.0 + 1.0j], jnp.complex64)
    stretch = lambda z: jax.lax.complex(z.real, 4 * z.imag)
    updates, _ = step(
        lb.surrogate_gap_descent(),
        params,
        stretch(params),
        grad_fn=lambda p, i: stretch(p),
    )
    expected = -0.1 * (G_S - 0.4 * ORTHOGONAL)
    np.testing.assert_allclose([updates[0].real, updates[0].imag], expected, rtol=1e-5)


def test_gradients_of_low_precision_are_combined_in_float32():
    """2⁻⁷ is the last place of 1 in bfloat16, where 0.9 / 0.1 is not 9."""
    params = jnp.ones(1, jnp.bfloat16)
    g_s = jnp.full(1, 1 + 2.0**-7, jnp.bfloat16)
    updates, _ = step(
        lb.weighted_descent(0.9),
        params,
        params,
        optax.sgd(1.0),
        grad_fn=lambda p, i: g_s,
    )
    expected = jnp.full(1, -(1 + 9 * 2.0**-7), jnp.bfloat16)
    np.testing.assert_array_equal(updates, expected)


# Any direction with any descent.


def halfway():
    """A descent of a user's own: along the first gradient of the climb."""

    def finish(step, first, g):
        del g
        u, state = step.base.update(first, step.base_state, step.params)
        return u, 0.5, state

    return lb.Descent(
        start=lambda step: step.grads,
        after_ascent=lambda step, first, i, g: jax.tree.map(
            lambda g, f: jnp.where(i == 0, g, f), g, first
        ),
        finish=finish,
    )


DIRECTIONS = {
    "sam": lb.sam_direction(),
    "asam": lb.asam_direction(0.02),
    "friendly": lb.friendly_direction(0.8, 0.7),
    "random": lb.random_direction(jax.random.key(3)),
    "sign": optax.scale_by_sign(),
}
DESCENTS = {
    "last": lb.last_descent(),
    "mean": lb.mean_descent(),
    "every": lb.every_descent(),
    "every, adaptive": lb.every_descent(lb.adaptive_alpha()),
    "every, pullback": lb.every_descent(0.4, pullback="pullback"),
    "every, reset": lb.every_descent(0.4, pullback="reset"),
    "surrogate gap": lb.surrogate_gap_descent(0.7),
    "weighted": lb.weighted_descent(0.8),
    "halfway": halfway(),
}
EVERY = {
    "every": (1 / 3, "none"),
    "every, adaptive": ("global", "none"),
    "every, pullback": (0.4, "pullback"),
    "every, reset": (0.4, "reset"),
}
ALONG = {
    "last": reference.last,
    "mean": reference.mean,
    "surrogate gap": reference.surrogate_gap(0.7),
    "weighted": reference.weighted(0.8),
    "halfway": lambda g, gradients: reference.tree_map(lambda x: x / 2, gradients[0]),
}
RHO, K = 0.3, 3
BASE, NUMPY_BASE = optax.sgd(0.05, momentum=0.9), reference.SGD(0.05, 0.9, 0.0)


def quartic(p):
    """Its gradient, in NumPy and in JAX."""
    total = sum(x.sum() for x in p.values())
    return {name: x**3 - 2 * x + total for name, x in p.items()}


def numpy_direction(name, points):
    """What is uphill; for the random direction, whatever was, by the points passed."""
    if name == "random":
        passed = iter(points)
        return lambda g, p: reference.tree_map(
            lambda new, old: (new - old) / RHO, next(passed), p
        )
    sign = lambda g, p: reference.tree_map(np.sign, g)
    known = {"sam": reference.sam, "asam": reference.asam(0.02), "sign": sign}
    return known[name]


def numpy_step(descent, phi, a, direction):
    arguments = phi, a, lambda p, i: quartic(p), NUMPY_BASE, direction, RHO, K
    if descent in EVERY:
        return reference.lookbehind(*arguments, *EVERY[descent])
    new, v = reference.one_step(*arguments, ALONG[descent])
    if descent == "halfway":  # half a step, whose velocity is not halved
        v = reference.tree_map(lambda v, old: 2 * v - 0.9 * old, v, a)
        u = reference.tree_map(lambda v: -0.05 * v / 2, v)
        new = reference.tree_map(np.add, phi, u)
    return new, v


@pytest.mark.parametrize(
    ("direction", "descent"),
    each(
        itertools.product(DIRECTIONS, DESCENTS),
        list(zip(itertools.cycle(DIRECTIONS), DESCENTS, strict=False)),
    ),
)
def test_any_direction_with_any_descent(direction, descent, x64):
    optimizer = lb.sharpness_aware(
        BASE, DIRECTIONS[direction], DESCENTS[descent], RHO, K
    )
    points = []

    def grad_fn(p, i):
        jax.debug.callback(lambda p: points.append(p), p, ordered=True)
        return quartic(p)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(
            quartic(params), state, params, grad_fn=grad_fn
        )
        return optax.apply_updates(params, updates), state

    expected = {"kernel": np.array([1.0, -0.5]), "bias": np.array([0.3])}
    velocity = NUMPY_BASE.init(expected)
    friendly = reference.Friendly(0.8, 0.7)
    params = jax.tree.map(jnp.asarray, expected)
    state = optimizer.init(params)
    for _ in range(3):
        points.clear()
        params, state = step(params, state)
        jax.effects_barrier()
        assert len(points) == K
        visited = [jax.tree.map(np.asarray, p) for p in points]
        lengths = [
            reference.norm(reference.tree_map(np.subtract, new, old))
            for old, new in zip([expected, *visited], visited, strict=False)
        ]
        if direction in ("sam", "friendly", "random"):
            np.testing.assert_allclose(lengths, RHO, rtol=1e-10)
        uphill = friendly
        if direction != "friendly":
            uphill = numpy_direction(direction, visited)
        clean = quartic(expected)
        expected, velocity = numpy_step(descent, expected, velocity, uphill)
        friendly.follow(clean)
        for got, wanted in [(params, expected), (state.base_state[0].trace, velocity)]:
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12),
                got,
                wanted,
            )


def test_what_a_descent_may_know():
    """The step that it is part of, with the clean gradient and the base optimizer."""
    seen = []

    def finish(step, carry, g):
        seen.append(step)
        assert carry == 3
        u, state = step.base.update(step.grads, step.base_state, step.params)
        return u, 1.0, state

    def after_ascent(step, carry, i, g):
        return carry + 1

    descent = lb.Descent(lambda step: jnp.int32(0), after_ascent, finish)
    optimizer = lb.sharpness_aware(SGD, lb.sam_direction(), descent, 0.5, 3)
    params = jnp.array([3.0, 1.0])
    state = optimizer.init(params)._replace(count=jnp.int32(7))
    updates, state = optimizer.update(
        grad(params), state, params, grad_fn=lambda p, i: grad(p)
    )
    np.testing.assert_allclose(updates, -0.1 * G, rtol=1e-6)
    (step_seen,) = seen
    assert isinstance(step_seen, lb.Step)
    assert step_seen.k == 3
    assert step_seen.count == 7
    assert state.count == 8
    np.testing.assert_array_equal(step_seen.params, params)
    np.testing.assert_array_equal(step_seen.grads, grad(params))
    np.testing.assert_array_equal(step_seen.mean(params), params)


@pytest.mark.parametrize("k", [1, 4])
def test_shares_of_each_leaf(k):
    """α may be a tree, with a number for each leaf; the state reports its mean."""
    shares = {"a": 0.25, "b": 1.0}

    def finish(step, carry, g):
        u, state = step.base.update(g, step.base_state, step.params)
        return u, shares, state

    descent = lb.Descent(lambda s: None, lambda s, c, i, g: None, finish)
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    extra = {"grad_fn": lambda p, i: jax.tree.map(jnp.ones_like, p)}
    updates, state = step(descent, params, params, k=k, **extra)
    np.testing.assert_allclose(updates["a"], -0.025 * np.ones(2), rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -0.1 * np.ones(3), rtol=1e-6)
    assert state.alpha == 0.625


def test_a_displacement_of_another_shape():
    """It would be broadcast."""

    def finish(step, carry, g):
        return g.sum(), 1.0, step.base_state

    descent = lb.Descent(lambda s: None, lambda s, c, i, g: None, finish)
    with pytest.raises(ValueError, match=r"^the descent's displacement must have the"):
        step(descent, jnp.ones(4), jnp.ones(4), k=1, grad_fn=lambda p, i: p)


@pytest.mark.parametrize(
    "base",
    [
        lb.lookahead(SGD),
        optax.chain(optax.contrib.schedule_free_sgd(0.1)),
        optax.contrib.cocob(),
        optax.contrib.madgrad(0.1),
    ],
    ids=["lookahead", "schedule_free", "cocob", "madgrad"],
)
def test_a_base_with_a_copy_of_the_parameters(base):
    """α would move the parameters back, and leave the copy where it is."""
    params = jnp.ones(2)
    optimizer = lb.lookbehind_sam(base)
    state = optimizer.init(params)
    with pytest.raises(TypeError, match=r"^base must not keep a copy of the"):
        optimizer.update(params, state, params, grad_fn=lambda p, i: p)
    one_step = lb.multistep_sam(base, k=2)  # which moves the copy as the base does
    one_step.update(params, state, params, grad_fn=lambda p, i: p)
