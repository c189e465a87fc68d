"""The climb: hand-worked steps, plug-in directions, masks, counts of gradients."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.lenient import lenient
from tests.library.members import each
from tests.library.members import SGD
from tests.library.problems import ConvNet
from tests.library.problems import gradient_step
from tests.library.problems import quadratic


def step(optimizer, params, state=None, loss=quadratic, **extra):
    """One step along `loss`; the state is a fresh one unless given."""
    state = optimizer.init(params) if state is None else state
    return gradient_step(optimizer, loss, params, state, **extra)[:2]


# ½p² from p = 1 with ρ = 0.1: gradients 1, then 1.1 and 1.2 on the climb.
BY_HAND = [
    (lb.sam(optax.sgd(0.1), 0.1), 1 - 0.1 * 1.1),
    (lb.multistep_sam(optax.sgd(0.1), 0.1, k=2), 1 - 0.1 * 1.2),
    (lb.multistep_sam(optax.sgd(0.1), 0.1, k=2, average=True), 1 - 0.1 * 1.15),
    (lb.lookbehind_sam(optax.sgd(0.1), 0.1, k=2, alpha=0.5), 1 - 0.05 * 2.3),
    # One parameter: all updates are aligned.
    (lb.lookbehind_sam(optax.sgd(0.1), 0.1, 2, lb.adaptive_alpha()), 1 - 0.1 * 2.3),
    # Momentum: velocities 1.1 and 0.9 · 1.1 + 1.2.
    (
        lb.lookbehind_sam(optax.sgd(0.1, momentum=0.9), 0.1, k=2, alpha=0.5),
        1 - 0.05 * (1.1 + 2.19),
    ),
    # T = |p| + η: steps of 0.1 · (1 + 0.5) and 0.1 · (1.15 + 0.5).
    (lb.multistep_asam(optax.sgd(0.1), 0.1, 2, eta=0.5), 1 - 0.1 * (1.15 + 0.165)),
]


@pytest.mark.parametrize(("optimizer", "expected"), BY_HAND)
def test_step_by_hand(optimizer, expected):
    params, state = step(optimizer, jnp.array(1.0))
    np.testing.assert_allclose(params, expected, rtol=1e-6)
    assert state.grad_norm == 1


def test_the_base_sees_the_fast_weights():
    """A base that halves what it is given betrays which parameters it was given."""
    halving = optax.stateless(lambda g, p: jax.tree.map(lambda p: -p / 2, p))
    params, _ = step(lb.lookbehind_sam(halving, k=3, alpha=1.0), jnp.array(8.0))
    assert params == 1
    params, _ = step(lb.multistep_sam(halving, k=3), jnp.array(8.0))
    assert params == 4


@pytest.mark.parametrize("value_fn", [False, True], ids=["grad_fn", "value_fn"])
@pytest.mark.parametrize("dtype", each(["float32", "complex64"], ["complex64"]))
def test_value_fn_takes_the_place_of_grad_fn(value_fn, dtype):
    params = jnp.array([1.0, -2.0], dtype)
    if dtype == "complex64":
        params = params * jnp.complex64(1 + 0.5j)
    loss = lambda p: jnp.sum(jnp.abs(p - jnp.ones([1], p.dtype)) ** 2)
    grad = lambda p: jnp.conj(jax.grad(loss)(p))
    optimizer = lb.lookbehind_sam(optax.sgd(0.1), rho=0.3, k=3, alpha=0.5)
    extra = {"value_fn": loss} if value_fn else {"grad_fn": lambda p, i: grad(p)}
    updates, _ = optimizer.update(grad(params), optimizer.init(params), params, **extra)
    # Uphill is away from 1, in a straight line: distances r + 0.3, 0.6, 0.9.
    offset = params - jnp.ones([1], dtype)
    r = jnp.linalg.norm(offset)
    steps = (3 * r + 1.8) * 2 * 0.1 * 0.5 / r
    np.testing.assert_allclose(updates, -steps.astype(dtype) * offset, rtol=1e-5)


@pytest.mark.parametrize("reuse", [True, False], ids=["k+1", "2k"])
def test_minibatches_switch_by_the_index(reuse):
    """Inner step i descends on minibatch i; which one it ascends on is `reuse`'s."""
    slopes = jnp.array([1.0, -2.0, 3.0])  # minibatch i has the loss slope · p
    seen = []

    def grad_fn(p, i):
        jax.debug.callback(lambda i, p: seen.append((int(i), float(p))), i, p)
        return slopes[i]

    optimizer = lb.lookbehind_sam(
        optax.sgd(1.0), rho=0.5, k=3, alpha=1.0, reuse_gradients=reuse
    )
    params = jnp.array(0.0)
    updates, _ = optimizer.update(
        slopes[0], optimizer.init(params), params, grad_fn=grad_fn
    )
    jax.effects_barrier()
    assert updates == -(1 - 2 + 3)
    if reuse:  # ascends along minibatch 0 twice (incoming, then 0), then minibatch 1
        assert sorted(seen) == [(0, 0.5), (1, 1.0), (2, 0.5)]
    else:  # ascends along 0, 1 and 2
        assert sorted(seen) == [(0, 0.5), (1, 0.0), (1, 0.5), (2, 0.0), (2, 0.5)]


@pytest.mark.parametrize("k", [0, 1, 2, 5])
@pytest.mark.parametrize("reuse", [True, False], ids=["k+1", "2k"])
def test_gradient_evaluations(k, reuse):
    """The caller's clean gradient and k more, or 2k − 1 more, counted as they run."""
    calls = []

    def grad_fn(p, i):
        jax.debug.callback(lambda: calls.append(None))
        return jax.grad(quadratic)(p)

    optimizer = lb.lookbehind_sam(optax.sgd(0.1), k=k, reuse_gradients=reuse)
    params = jnp.ones(3)

    @jax.jit
    def run(params, state):
        grads = jax.grad(quadratic)(params)
        return optimizer.update(grads, state, params, grad_fn=grad_fn)

    jax.block_until_ready(run(params, optimizer.init(params)))
    jax.effects_barrier()
    assert len(calls) == (k if reuse else max(2 * k - 1, 0))


# Two directions of a user's own.


def momentum_direction(decay):
    """Uphill along a moving average of the gradients."""
    return optax.chain(optax.ema(decay, debias=False), lb.sam_direction())


def random_direction(seed):
    """Anywhere, with equal probability; the key is the state."""

    def init(params):
        del params
        return jax.random.key(seed)

    def update(g, key, p=None):
        key, now = jax.random.split(key)
        noise = optax.tree.random_like(now, g)
        return lb.sam_direction().update(noise, optax.EmptyState(), p)[0], key

    return optax.GradientTransformation(init, update)


def perturbed(state):
    """The state of the direction, which sees the perturbed leaves alone."""
    return state.direction_state.inner_states["perturbed"].inner_state


USES = {
    "sam": dict(k=1, descent=lb.last_descent()),
    "multistep": dict(k=3, descent=lb.mean_descent()),
    "lookbehind": dict(k=3, descent=lb.every_descent(0.5)),
}


@pytest.mark.parametrize("use", each(USES, ["lookbehind"]))
def test_direction_with_a_moving_average(use):
    optimizer = lb.sharpness_aware(
        optax.sgd(0.1), momentum_direction(0.5), rho=0.2, **USES[use]
    )
    params = {"w": jnp.array([3.0, -4.0]), "b": jnp.array([1.0])}
    state = optimizer.init(params)
    average = jax.tree.map(np.zeros_like, params)
    expected = jax.tree.map(np.asarray, params)
    for _ in range(2):
        params, state = step(optimizer, params, state)
        p, gradients = expected, []
        g = p  # the quadratic's gradient
        for _ in range(USES[use]["k"]):
            average = jax.tree.map(lambda a, g: 0.5 * a + 0.5 * g, average, g)
            norm = np.sqrt(sum(np.sum(a**2) for a in average.values()))
            d = optax.tree.scale(1 / norm, average)
            p = optax.tree.add_scale(p, 0.2, d)
            g = p
            gradients.append(g)
        share = {"sam": 1, "multistep": 1 / 3, "lookbehind": 0.5}[use]
        total = functools.reduce(optax.tree.add, gradients)
        expected = optax.tree.add_scale(expected, -0.1 * share, total)
        chex.assert_trees_all_close(params, expected, rtol=1e-5)
        chex.assert_trees_all_close(perturbed(state)[0].ema, average, rtol=1e-5)


def test_direction_of_another_shape():
    """A number for each leaf would be broadcast over it."""
    per_leaf = optax.stateless(lambda g, p: jax.tree.map(jnp.sum, g))
    optimizer = lb.sharpness_aware(optax.sgd(0.1), per_leaf, lb.last_descent())
    params = {"w": jnp.array([3.0, -4.0])}
    with pytest.raises(ValueError, match=r"^the direction's update must have the shap"):
        step(optimizer, params)


def test_what_is_no_descent():
    made_by: Any = lb.last_descent
    with pytest.raises(TypeError, match=r"^descent must be a Descent, such as last_"):
        lb.sharpness_aware(optax.sgd(0.1), lb.sam_direction(), made_by)


@pytest.mark.parametrize("use", each(USES, ["lookbehind"]))
def test_direction_with_a_random_key(use):
    optimizer = lb.sharpness_aware(
        optax.sgd(0.1), random_direction(7), rho=0.2, **USES[use]
    )
    params = jnp.array([3.0, -4.0])
    after, state = step(optimizer, params)
    key = jax.random.key(7)
    p, gradients = params, []
    for _ in range(USES[use]["k"]):
        key, now = jax.random.split(key)
        noise = optax.tree.random_like(now, params)
        p = p + 0.2 * noise / jnp.linalg.norm(noise)
        gradients.append(p)
    share = {"sam": 1, "multistep": 1 / 3, "lookbehind": 0.5}[use]
    np.testing.assert_allclose(after, params - 0.1 * share * sum(gradients), rtol=1e-5)
    assert (jax.random.key_data(perturbed(state)) == jax.random.key_data(key)).all()


MASKS = {
    "tree": {"frozen": {"w": False}, "free": {"w": True, "b": True}},
    "prefix": {"frozen": False, "free": True},
    "function": lambda p: {name: name == "free" for name in p},
}


@pytest.mark.parametrize("mask", each(MASKS, ["prefix", "function"]))
@pytest.mark.parametrize(
    "member",
    each(
        [lb.sam, lb.asam, lb.multistep_sam, lb.wsam, lb.friendly_sam],
        [lb.multistep_sam, lb.friendly_sam],
    ),
)
def test_mask(member, mask):
    """Masked leaves neither move on the climb nor enter the norm, yet they are trained.

    With a leaf that the loss doesn't couple to the others, that is as if the rest were
    all there is.
    """
    params = {
        "frozen": {"w": jnp.array([30.0, 40.0])},
        "free": {"w": jnp.array([3.0, 4.0]), "b": jnp.array([1.0])},
    }
    masked, _ = step(member(optax.sgd(0.1), rho=0.5, mask=MASKS[mask]), params)
    alone, _ = step(member(optax.sgd(0.1), rho=0.5), params["free"])
    chex.assert_trees_all_close(masked["free"], alone, rtol=1e-6)
    chex.assert_trees_all_close(
        masked["frozen"], optax.tree.scale(0.9, params["frozen"]), rtol=1e-6
    )


def test_map_params_sees_through_a_mask():
    optimizer = lb.sam(optax.sgd(0.1, momentum=0.9), mask=MASKS["prefix"])
    params = {"frozen": jnp.ones(2), "free": jnp.ones(2)}
    state = optimizer.init(params)
    doubled = optax.tree.map_params(optimizer, lambda x: x + 1, state)
    chex.assert_trees_all_equal(doubled.base_state[0].trace, params)


def test_the_state_has_alpha_and_the_gradient_norm():
    # Two opposed gradients of equal length: θ between u₁ and u₁ + u₂.
    params = jnp.array([0.0, 0.0])
    slopes = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    optimizer = lb.lookbehind_sam(optax.sgd(0.1), alpha=lb.adaptive_alpha())
    _, state = optimizer.update(
        3 * slopes[0], optimizer.init(params), params, grad_fn=lambda p, i: slopes[i]
    )
    np.testing.assert_allclose(state.alpha, (np.sqrt(0.5) + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(state.grad_norm, 3.0)
    assert optax.tree.get(state, "alpha") == state.alpha


def test_alpha_per_tensor_is_reported_as_a_mean():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    slopes = {"a": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "b": jnp.ones((2, 2))}
    at = lambda i: jax.tree.map(lambda s: s[i], slopes)
    optimizer = lb.lookbehind_sam(
        optax.sgd(0.1), alpha=lb.adaptive_alpha(per_tensor=True)
    )
    updates, state = optimizer.update(
        at(0), optimizer.init(params), params, grad_fn=lambda p, i: at(i)
    )
    a = (np.sqrt(0.5) + 1) / 2
    np.testing.assert_allclose(updates["a"], [-0.1 * a, -0.1 * a], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [-0.2, -0.2], rtol=1e-6)
    np.testing.assert_allclose(state.alpha, (a + 1) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    "member",
    [lb.sam, lb.asam, lb.multistep_sam, lb.lookbehind_sam, lb.lookbehind_asam],
)
def test_a_zero_gradient_perturbs_nothing(member):
    params = {"kernel": jnp.ones(3), "bias": jnp.zeros(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    optimizer = member(optax.sgd(0.1))
    updates, state = optimizer.update(
        zero,
        optimizer.init(params),
        params,
        grad_fn=lambda p, i: jax.tree.map(jnp.subtract, p, params),
    )
    chex.assert_trees_all_equal(updates, zero)
    assert jnp.isfinite(state.alpha)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_non_finite_gradient_passes_through(bad):
    """As with Optax's own, so that `apply_if_finite` finds it and skips the step."""
    params = jnp.ones(2)
    grads = jnp.array([bad, 1.0])
    optimizer = lb.lookbehind_sam(optax.sgd(0.1, momentum=0.9))
    extra = {"grad_fn": lambda p, i: jax.grad(quadratic)(p)}
    updates, _ = optimizer.update(grads, optimizer.init(params), params, **extra)
    assert not jnp.isfinite(updates).all()
    guarded = optax.apply_if_finite(optimizer, 3)
    state = guarded.init(params)
    updates, new_state = guarded.update(grads, state, params, **extra)
    chex.assert_trees_all_equal(updates, jnp.zeros(2))
    chex.assert_trees_all_equal(new_state.inner_state, state.inner_state)


def test_the_norm_of_a_large_float16_gradient():
    """√70 000 = 264.6 fits float16, the sum of squares does not."""
    params = jnp.zeros(70_000, jnp.float16)
    optimizer = lb.sam(optax.sgd(1.0), rho=264.575)
    updates, state = optimizer.update(
        jnp.ones_like(params), optimizer.init(params), params, grad_fn=lambda p, i: p
    )
    np.testing.assert_allclose(state.grad_norm, np.sqrt(70_000), rtol=1e-6)
    # Within one unit in the last place of float16.
    np.testing.assert_allclose(updates, -np.ones(70_000), rtol=2.0**-10)


def test_a_small_update_is_not_lost_in_low_precision():
    """Fast weights of bfloat16 near 1 can't move by 2⁻¹⁰; their displacement can."""
    params = jnp.ones(1, jnp.bfloat16)
    optimizer = lb.lookbehind_sam(optax.sgd(2.0**-10), k=8, alpha=1.0)
    updates, _ = optimizer.update(
        params, optimizer.init(params), params, grad_fn=lambda p, i: jnp.ones_like(p)
    )
    assert updates == -(2.0**-7)


# What is compiled.


@functools.cache
def convnet():
    """Its loss, and parameters."""
    model = ConvNet((8, 16), classes=10)
    x = jax.random.normal(jax.random.key(0), (32, 8, 8, 3))
    y = jax.nn.one_hot(jnp.arange(32) % 10, 10)  # integers would come with a loop

    def loss(params):
        logits = model.apply(params, x)
        return optax.softmax_cross_entropy(logits, y).mean()

    return loss, jax.jit(model.init)(jax.random.key(1), x)


@functools.cache
def flops_of_one_gradient():
    loss, params = convnet()
    analysis = jax.jit(jax.grad(loss)).lower(params).compile().cost_analysis()
    assert analysis is not None
    return analysis["flops"]


COMPILED = {
    "sam": (lb.sam(SGD), 2),
    "multistep_asam k=5": (lb.multistep_asam(SGD, k=5), 6),
    "lookbehind_sam k=2": (lb.lookbehind_sam(SGD, k=2), 3),
    "lookbehind_asam k=5": (
        lb.lookbehind_asam(SGD, k=5, alpha=lb.adaptive_alpha()),
        6,
    ),
}


@pytest.mark.parametrize("name", each(COMPILED, ["lookbehind_sam k=2"]))
def test_flops_and_straight_line_code_on_the_cpu(name, standard_promotion):
    optimizer, gradients = COMPILED[name]
    loss, params = convnet()
    step = functools.partial(gradient_step, optimizer, loss)
    compiled: Any = jax.jit(step).lower(params, optimizer.init(params)).compile()
    all_of_them = compiled.cost_analysis()
    assert all_of_them is not None
    np.testing.assert_allclose(
        all_of_them["flops"] / flops_of_one_gradient(), gradients, rtol=0.02
    )
    text = compiled.as_text()
    assert " while(" not in text
    assert " conditional(" not in text


def dense_step(optimizer):
    """A network without a convolution."""
    x, y = jnp.ones((8, 16)), jnp.ones((8, 4))
    params = {"in": jnp.ones((16, 32)), "out": jnp.ones((32, 4))}

    def loss(params):
        return jnp.mean((jnp.tanh(x @ params["in"]) @ params["out"] - y) ** 2)

    return functools.partial(gradient_step, optimizer, loss), params


@pytest.mark.parametrize(
    "name",
    each(
        [*COMPILED, "gsam", "friendly_sam"],
        ["lookbehind_sam k=2", "lookbehind_asam k=5"],
    ),
)
def test_one_loop_on_the_cpu_without_a_convolution(name):
    """From three ascents on; and as many FLOPs as of straight-line code."""
    short = {"gsam": (lb.gsam(SGD), 2), "friendly_sam": (lb.friendly_sam(SGD), 2)}
    optimizer, gradients = (COMPILED | short)[name]
    step, params = dense_step(optimizer)
    compiled: Any = jax.jit(step).lower(params, optimizer.init(params)).compile()
    assert compiled.as_text().count(" while(") == (gradients > 3)
    assert " conditional(" not in compiled.as_text()


@pytest.mark.parametrize(
    "member",
    each(
        [
            lb.multistep_sam,
            lb.lookbehind_asam,
            functools.partial(lb.lookbehind_sam, pullback="pullback"),
            functools.partial(lb.lookbehind_sam, reuse_gradients=False),
        ],
        [lb.lookbehind_asam],
    ),
)
def test_a_program_of_constant_size_on_the_cpu_without_a_convolution(member):
    def compiled(k) -> Any:
        optimizer = member(SGD, k=k)
        step, params = dense_step(optimizer)
        return jax.jit(step).lower(params, optimizer.init(params)).compile()

    programs = [compiled(k) for k in (4, 10)]
    short, long = (program.as_text() for program in programs)
    assert abs(len(long) - len(short)) < 0.01 * len(short)
    short, long = (program.memory_analysis() for program in programs)
    assert short.temp_size_in_bytes == long.temp_size_in_bytes


@pytest.mark.parametrize(
    "member",
    each(
        [
            lb.multistep_sam,
            lb.lookbehind_asam,
            functools.partial(lb.lookbehind_sam, reuse_gradients=False),
        ],
        [lb.lookbehind_asam],
    ),
)
def test_one_loop_of_constant_size_on_accelerators(member, standard_promotion):
    def traced(k):
        optimizer, (loss, params) = member(SGD, k=k), convnet()
        step = jax.jit(functools.partial(gradient_step, optimizer, loss))
        return step.trace(params, optimizer.init(params))

    programs = [traced(k) for k in (3, 10)]
    for platform in ("cuda", "tpu"):
        short, long = (
            program.lower(lowering_platforms=(platform,)).as_text()
            for program in programs
        )
        assert short.count("stablehlo.while") == long.count("stablehlo.while") == 1
        assert abs(len(long) - len(short)) < 0.01 * len(short)


@pytest.mark.parametrize(
    "member", each([lb.sam, lb.lookbehind_asam], [lb.lookbehind_asam])
)
def test_update_can_be_differentiated(member):
    """A meta-gradient through a step equals the finite difference."""

    @jax.jit
    def after(rate):
        optimizer = member(optax.sgd(rate), rho=0.1)
        params = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}
        quartic = lambda p: sum(jnp.sum(x**4) for x in jax.tree.leaves(p))
        params, _ = step(optimizer, params, loss=quartic)
        return quartic(params)

    with jax.enable_x64(True):
        slope = jax.grad(after)(0.01)
        difference = (after(0.01 + 1e-5) - after(0.01 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_momentum_advances_and_adams_count_grows():
    optimizer = lb.lookbehind_sam(lenient(optax.adam(0.1)), k=3)
    _, state = step(optimizer, jnp.array([1.0, 2.0]))
    assert optax.tree.get(state.base_state, "count") == 3
    assert state.count == 1


def test_a_sharpness_aware_base():
    """It would ask for gradients that nobody has; without a climb it may."""
    with pytest.raises(TypeError, match=r"^base must not be sharpness-aware itself"):
        lb.lookbehind_sam(optax.chain(lb.sam(SGD))).init(jnp.ones(2))
    lb.lookbehind_sam(lb.sam(SGD), k=0).init(jnp.ones(2))


OTHER_STATES = {
    "of another base": lb.sam(optax.adam(0.1)),
    "of a base without momentum": lb.sam(optax.sgd(0.1)),
    "of a chain": lb.sam(optax.chain(optax.clip(1.0), SGD)),
}


@pytest.mark.parametrize("name", OTHER_STATES)
def test_the_state_of_another_base(name):
    params = jnp.ones(2)
    state = OTHER_STATES[name].init(params)
    message = (
        r"(?s)^state must come from .* over the same base; .*instead of.*PyTreeDef"
    )
    with pytest.raises(ValueError, match=message):
        step(lb.lookbehind_sam(SGD), params, state)


def test_the_state_of_the_base_itself():
    """The remedy in the message is one."""
    params = jnp.ones(2)
    message = r"^state must be a SharpnessAwareState.*_replace\(base_state=\.\.\.\)"
    with pytest.raises(TypeError, match=message):
        step(lb.sam(SGD), params, SGD.init(params))
    trained = jax.tree.map(jnp.ones_like, SGD.init(params))
    optimizer = lb.sam(SGD)
    state = optimizer.init(params)._replace(base_state=trained)
    _, state = step(optimizer, params, state)
    assert (optax.tree.get(state, "trace") > 1.9).all()


def test_what_nobody_knows_of_the_perturbed_loss():
    """By `grad_fn`, a loss is not there: the least float32, which is finite."""
    _, state = step(lb.sam(SGD), jnp.ones(2))
    assert state.perturbed_loss == jnp.finfo(jnp.float32).min
    _, state = step(lb.sam(SGD, 0.5), jnp.array([3.0, 4.0]), value_fn=quadratic)
    np.testing.assert_allclose(state.perturbed_loss, 5.5**2 / 2, rtol=1e-6)
