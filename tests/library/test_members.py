"""Every member equals the literal algorithm of `reference.py`, to 1e-10."""

import functools
import itertools

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library import reference
from tests.library.lenient import lenient
from tests.library.members import each

LEAVES = st.sampled_from(
    [("kernel", (3, 2)), ("kernel", (2,)), ("bias", (3,)), ("scale", ()), ("b", (2,))]
)
TREES = st.lists(LEAVES, min_size=1, max_size=3)
RHO = st.floats(0.01, 0.5)
STEPS = 2


class Problem:
    """Random parameters, and a loss whose gradient is written down for NumPy as well.

    L_i(p) = ½ Σ a_i p² + Σ sin(b_i p) + ½ (Σ p)²; minibatch i has coefficients of its
    own, and so has step t.
    """

    def __init__(self, leaves, k, seed, *, switch=False):
        rng = np.random.default_rng(seed)
        names = [f"layer{n}/{name}" for n, (name, _) in enumerate(leaves)]
        shapes = [shape for _, shape in leaves]
        batches = max(k, 1) if switch else 1

        def draw(*lead):
            return {
                name: rng.normal(size=(*lead, *shape))
                for name, shape in zip(names, shapes, strict=True)
            }

        self.params = draw()
        self.a = draw(STEPS, batches)
        self.b = draw(STEPS, batches)
        self.batches = batches

    def numpy_grad(self, t, p, i):
        i = i % self.batches
        total = sum(np.sum(x) for x in p.values())
        return {
            n: self.a[n][t, i] * x
            + self.b[n][t, i] * np.cos(self.b[n][t, i] * x)
            + total
            for n, x in p.items()
        }

    def loss(self, p, a, b, i):
        i = i % self.batches
        leaves = [
            jnp.sum(a[n][i] * x**2) / 2 + jnp.sum(jnp.sin(b[n][i] * x))
            for n, x in p.items()
        ]
        total = sum(jnp.sum(x) for x in p.values())
        return sum(leaves) + total**2 / 2

    def assert_same(self, optimizer, reference_states):
        """Follows `optimizer` and compares the parameters after every step."""

        @jax.jit
        def step(p, state, a, b):
            grad = jax.grad(self.loss)
            updates, state = optimizer.update(
                grad(p, a, b, 0), state, p, grad_fn=lambda p, i: grad(p, a, b, i)
            )
            return optax.apply_updates(p, updates), state

        p = jax.tree.map(jnp.asarray, self.params)
        state = optimizer.init(p)
        for t, expected in zip(range(STEPS), reference_states, strict=True):
            a, b = coefficients(self, t)
            p, state = step(p, state, a, b)
            got = {"params": p, "eval": lb.eval_params(state, p)}
            for which, tree in expected.items():
                for name, x in tree.items():
                    np.testing.assert_allclose(
                        got[which][name], x, rtol=1e-10, atol=1e-10, err_msg=name
                    )


def coefficients(problem, t):
    return jax.tree.map(lambda x: jnp.asarray(x[t]), (problem.a, problem.b))


BASES = {
    "sgd": (
        optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.05, momentum=0.9)),
        reference.SGD(0.05, 0.9, 0.01),
    ),
    "adam": (lenient(optax.adam(0.01)), reference.Adam(0.01)),
}
ALPHAS = {
    "global": lb.adaptive_alpha(),
    "per tensor": lb.adaptive_alpha(per_tensor=True),
}


def run_reference(problem, base, member):
    """The parameters after each step; `member(phi, a, grad)` takes one step."""
    phi, a = problem.params, base.init(problem.params)
    for t in range(STEPS):
        phi, a = member(phi, a, functools.partial(problem.numpy_grad, t))
        yield {"params": phi}


def directions(kind, eta):
    if kind == "sam":
        return lb.sam_direction(), reference.sam
    # The reference knows a bias by its ending, so `b` is named here.
    is_weight = lambda path, leaf: not path[-1].key.endswith("bias")
    return lb.asam_direction(eta, weights=is_weight), reference.asam(eta)


@pytest.mark.parametrize(
    ("kind", "base"),
    each(itertools.product(["sam", "asam"], BASES), [("asam", "adam")]),
)
@given(
    leaves=TREES,
    k=st.integers(0, 10),
    rho=RHO,
    eta=st.floats(0, 0.1),
    alpha=st.one_of(st.floats(0, 1), st.sampled_from(["global", "per tensor"])),
    reuse=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_lookbehind(kind, base, leaves, k, rho, eta, alpha, reuse, seed):
    # With the minibatch switched, the incoming gradient is of minibatch 0, and so
    # reusing gradients differs from the literal algorithm; without, it must not.
    with jax.enable_x64(True):
        problem = Problem(leaves, k, seed, switch=not reuse)
        ours, theirs = directions(kind, eta)
        optimizer = lb.sharpness_aware(
            BASES[base][0],
            ours,
            lb.every_descent(ALPHAS.get(alpha, alpha)),
            rho,
            k,
            reuse_gradients=reuse,
        )
        member = lambda phi, a, grad: reference.lookbehind(
            phi, a, grad, BASES[base][1], theirs, rho, k, alpha
        )
        problem.assert_same(optimizer, run_reference(problem, BASES[base][1], member))


@pytest.mark.parametrize(
    ("kind", "average"),
    each(
        itertools.product(["sam", "asam"], [False, True]),
        [("sam", True)],
    ),
)
@given(
    leaves=TREES,
    k=st.integers(0, 10),
    rho=RHO,
    eta=st.floats(0, 0.1),
    base=st.sampled_from(list(BASES)),
    seed=st.integers(0, 2**31),
)
def test_multistep(kind, average, leaves, k, rho, eta, base, seed):
    with jax.enable_x64(True):
        problem = Problem(leaves, k, seed)
        ours, theirs = directions(kind, eta)
        descent = lb.mean_descent() if average else lb.last_descent()
        optimizer = lb.sharpness_aware(BASES[base][0], ours, descent, rho, k)
        member = lambda phi, a, grad: reference.multistep(
            phi, a, grad, BASES[base][1], theirs, rho, k, average
        )
        problem.assert_same(optimizer, run_reference(problem, BASES[base][1], member))


ALPHA = st.one_of(st.floats(0, 1), st.sampled_from(["global", "per tensor"]))


@pytest.mark.thorough
@pytest.mark.parametrize("pullback", ["none", "pullback", "reset"])
@given(
    leaves=TREES, k=st.integers(1, 6), rho=RHO, alpha=ALPHA, seed=st.integers(0, 2**31)
)
def test_lookbehind_with_momentum_that_comes_back(
    pullback, leaves, k, rho, alpha, seed
):
    with jax.enable_x64(True):
        problem = Problem(leaves, k, seed)
        base, numpy_base = BASES["sgd"]
        optimizer = lb.lookbehind_sam(
            base, rho, k, ALPHAS.get(alpha, alpha), pullback=pullback
        )
        member = lambda phi, a, grad: reference.lookbehind(
            phi, a, grad, numpy_base, reference.sam, rho, k, alpha, pullback
        )
        problem.assert_same(optimizer, run_reference(problem, numpy_base, member))


ONE_STEP = {
    "gsam": (
        lambda base, rho, share: lb.gsam(base, rho, share),
        reference.surrogate_gap,
    ),
    "wsam": (lambda base, rho, share: lb.wsam(base, rho, share), reference.weighted),
}


@pytest.mark.parametrize("name", each(ONE_STEP, ["gsam"]))
@given(
    leaves=TREES,
    rho=RHO,
    share=st.floats(0, 0.95),
    base=st.sampled_from(list(BASES)),
    seed=st.integers(0, 2**31),
)
def test_gsam_and_wsam(name, leaves, rho, share, base, seed):
    with jax.enable_x64(True):
        problem = Problem(leaves, 1, seed)
        make, combine = ONE_STEP[name]
        member = lambda phi, a, grad: reference.one_step(
            phi, a, grad, BASES[base][1], reference.sam, rho, 1, combine(share)
        )
        problem.assert_same(
            make(BASES[base][0], rho, share),
            run_reference(problem, BASES[base][1], member),
        )


FRIENDLY = {
    "friendly_sam": lambda base, rho, k, sigma, decay: lb.friendly_sam(
        base, rho, sigma, decay
    ),
    "lookbehind": lambda base, rho, k, sigma, decay: lb.sharpness_aware(
        base, lb.friendly_direction(sigma, decay), lb.every_descent(0.3), rho, k
    ),
    "lookbehind_2k": lambda base, rho, k, sigma, decay: lb.sharpness_aware(
        base,
        lb.friendly_direction(sigma, decay),
        lb.every_descent(0.3),
        rho,
        k,
        reuse_gradients=False,
    ),
    "average": lambda base, rho, k, sigma, decay: lb.sharpness_aware(
        base, lb.friendly_direction(sigma, decay), lb.mean_descent(), rho, k
    ),
}


@pytest.mark.parametrize("name", each(FRIENDLY, ["friendly_sam"]))
@given(
    leaves=TREES,
    k=st.integers(1, 4),
    rho=RHO,
    sigma=st.floats(0, 1.5),
    decay=st.floats(0, 0.95),
    base=st.sampled_from(list(BASES)),
    seed=st.integers(0, 2**31),
)
def test_friendly(name, leaves, k, rho, sigma, decay, base, seed):
    """m is that of before all along the climb, and follows the clean gradient once."""
    k = 1 if name == "friendly_sam" else k
    with jax.enable_x64(True):
        problem = Problem(leaves, k, seed, switch=name == "lookbehind_2k")
        numpy_base = BASES[base][1]
        direction = reference.Friendly(sigma, decay)

        def member(phi, a, grad):
            arguments = phi, a, grad, numpy_base, direction, rho, k
            if name.startswith("lookbehind"):
                result = reference.lookbehind(*arguments, 0.3)
            else:
                combine = reference.mean if name == "average" else reference.last
                result = reference.one_step(*arguments, combine)
            direction.follow(grad(phi, 0))
            return result

        problem.assert_same(
            FRIENDLY[name](BASES[base][0], rho, k, sigma, decay),
            run_reference(problem, numpy_base, member),
        )


@pytest.mark.thorough
@given(leaves=TREES, rho=RHO, k=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_radius_and_rate_over_k(leaves, rho, k, seed):
    """The ρ/k variant of A.1.2: radius ρ/k, rate η/k, no interpolation."""
    with jax.enable_x64(True):
        problem = Problem(leaves, k, seed)
        base = optax.chain(BASES["sgd"][0], optax.scale(1 / k))
        optimizer = lb.lookbehind_sam(base, rho / k, k, alpha=1.0)
        scaled = reference.SGD(0.05 / k, 0.9, 0.01)
        member = lambda phi, a, grad: reference.lookbehind(
            phi, a, grad, scaled, reference.sam, rho / k, k, 1.0
        )
        problem.assert_same(optimizer, run_reference(problem, scaled, member))


@pytest.mark.thorough
@pytest.mark.parametrize("inner", ["sgd", "sam"])
@given(
    leaves=TREES,
    rho=RHO,
    k=st.integers(1, 3),
    alpha=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_lookahead(inner, leaves, rho, k, alpha, seed):
    with jax.enable_x64(True):
        problem = Problem(leaves, 1, seed)
        base, numpy_base = BASES["sgd"]
        optimizer = lb.lookahead(
            lb.sam(base, rho) if inner == "sam" else base, k, alpha
        )
        steps = iter(range(STEPS))

        def step(phi, a):
            grad = functools.partial(problem.numpy_grad, next(steps))
            climbs = 1 if inner == "sam" else 0
            return reference.multistep(
                phi, a, grad, numpy_base, reference.sam, rho, climbs
            )

        run = reference.lookahead(step, k, alpha)
        trajectory = run(problem.params, numpy_base.init(problem.params), STEPS)
        problem.assert_same(
            optimizer, ({"params": fast, "eval": slow} for fast, slow in trajectory)
        )


@pytest.mark.thorough
@pytest.mark.parametrize("inner", ["sgd", "sam"])
@given(leaves=TREES, rho=RHO, k=st.integers(1, 2), seed=st.integers(0, 2**31))
def test_lookahead_with_an_outer_optimizer(inner, leaves, rho, k, seed):
    """SNOO and the outer half of DiLoCo: Nesterov momentum for the slow weights."""
    with jax.enable_x64(True):
        problem = Problem(leaves, 1, seed)
        base, numpy_base = BASES["sgd"]
        optimizer = lb.lookahead(
            lb.sam(base, rho) if inner == "sam" else base,
            k,
            outer=optax.sgd(0.7, momentum=0.9, nesterov=True),
        )
        steps = iter(range(STEPS))

        def step(phi, a):
            grad = functools.partial(problem.numpy_grad, next(steps))
            climbs = 1 if inner == "sam" else 0
            return reference.multistep(
                phi, a, grad, numpy_base, reference.sam, rho, climbs
            )

        outer = reference.SGD(0.7, 0.9, 0.0, nesterov=True)
        run = reference.lookahead(step, k, outer=outer)
        trajectory = run(problem.params, numpy_base.init(problem.params), STEPS)
        problem.assert_same(
            optimizer, ({"params": fast, "eval": slow} for fast, slow in trajectory)
        )


# The named members are the general transformation with its arguments filled in.
NAMED = {
    "sam": (lb.sam, dict(k=1, descent=lb.last_descent())),
    "multistep_sam": (lb.multistep_sam, dict(k=2, descent=lb.last_descent())),
    "multistep_sam average": (
        functools.partial(lb.multistep_sam, average=True),
        dict(k=2, descent=lb.mean_descent()),
    ),
    "lookbehind_sam": (lb.lookbehind_sam, dict(k=2, descent=lb.every_descent(0.5))),
    "asam": (lb.asam, dict(k=1, descent=lb.last_descent())),
    "multistep_asam": (lb.multistep_asam, dict(k=2, descent=lb.last_descent())),
    "multistep_asam average": (
        functools.partial(lb.multistep_asam, average=True),
        dict(k=2, descent=lb.mean_descent()),
    ),
    "lookbehind_asam": (lb.lookbehind_asam, dict(k=2, descent=lb.every_descent(0.5))),
    "gsam": (lb.gsam, dict(descent=lb.surrogate_gap_descent(0.4))),
    "wsam": (lb.wsam, dict(descent=lb.weighted_descent(0.9))),
    "friendly_sam": (lb.friendly_sam, dict(descent=lb.last_descent())),
}


@functools.cache
def start(x64):
    """A loss by the number of its minibatch, parameters, and their gradient."""
    problem = Problem([("kernel", (3, 2)), ("bias", (3,)), ("b", (2,))], 4, 0)
    p = jax.tree.map(jnp.asarray, problem.params)
    a, b = coefficients(problem, 0)
    loss = lambda p, i: problem.loss(p, a, b, i)
    return loss, p, jax.grad(loss)(p, 0)


def one_step(optimizer):
    loss, p, g = start(jax.config.jax_enable_x64)
    return jax.jit(lambda g, s, p: optimizer.update(g, s, p, grad_fn=jax.grad(loss)))(
        g, optimizer.init(p), p
    )


@pytest.mark.parametrize(
    "name", each(NAMED, ["multistep_asam average", "lookbehind_sam", "friendly_sam"])
)
def test_defaults_of_the_named_members(name, x64):
    member, arguments = NAMED[name]
    if "asam" in name:
        direction, rho = lb.asam_direction(0.01), 0.5
    elif name == "friendly_sam":
        direction, rho = lb.friendly_direction(1.0, 0.9), 0.05
    else:
        direction, rho = lb.sam_direction(), 0.05
    base = optax.sgd(0.1, momentum=0.9)
    updates, _ = one_step(member(base))
    expected, _ = one_step(lb.sharpness_aware(base, direction, rho=rho, **arguments))
    jax.tree.map(np.testing.assert_array_equal, updates, expected)


@pytest.mark.parametrize("k", each([1, 2, 3, 5], [2]))
@pytest.mark.parametrize(
    "member", each([lb.lookbehind_sam, lb.lookbehind_asam], [lb.lookbehind_asam])
)
def test_alpha_is_one_over_k_by_default(member, k):
    base = optax.sgd(0.1, momentum=0.9)
    updates, state = one_step(member(base, k=k))
    expected, expected_state = one_step(member(base, k=k, alpha=1 / k))
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)
    np.testing.assert_allclose(state.alpha, 1 / k, rtol=1e-6)


# Members that are another one where a number has a certain value, to the last bit or,
# where a sum is taken in another order, nearly.
SAME = {
    "gsam, alpha = 0": (lambda base: lb.gsam(base, 0.5, 0.0), "sam", 0),
    "wsam, gamma = 1/2": (lambda base: lb.wsam(base, 0.5, 0.5), "sam", 1e-6),
    "wsam, gamma = 0": (lambda base: lb.wsam(base, 0.5, 0.0), "base", 0),
    "friendly_sam, sigma = 0": (lambda base: lb.friendly_sam(base, 0.5, 0.0), "sam", 0),
    "lookbehind_sam, k = 1": (lambda base: lb.lookbehind_sam(base, 0.5, 1), "sam", 0),
}


@pytest.mark.parametrize(
    "name",
    each(SAME, ["wsam, gamma = 1/2", "wsam, gamma = 0", "friendly_sam, sigma = 0"]),
)
def test_members_that_are_another_one(name):
    base = optax.sgd(0.1, momentum=0.9)
    make, other, rtol = SAME[name]
    other = {"sam": lb.sam(base, 0.5), "base": base}[other]
    problem = Problem([("kernel", (3, 2)), ("bias", (3,)), ("b", (2,))], 4, 0)
    grad = jax.grad(problem.loss)

    def trajectory(optimizer):
        p = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), problem.params)
        state = optax.with_extra_args_support(optimizer).init(p)
        for t in range(STEPS):
            ab = coefficients(problem, t)
            updates, state = optax.with_extra_args_support(optimizer).update(
                grad(p, *ab, 0), state, p, grad_fn=lambda p, i, ab=ab: grad(p, *ab, 0)
            )
            p = optax.apply_updates(p, updates)
        return p

    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol),
        trajectory(make(base)),
        trajectory(other),
    )


@pytest.mark.parametrize("alpha", [1.0, lb.adaptive_alpha()], ids=["one", "adaptive"])
@pytest.mark.parametrize("kind", each(["sam", "asam"], ["asam"]))
def test_lookbehind_with_one_step_is_sam(kind, alpha):
    base = lenient(optax.adam(0.1))
    member = {"sam": lb.sam, "asam": lb.asam}[kind](base)
    lookbehind = {"sam": lb.lookbehind_sam, "asam": lb.lookbehind_asam}[kind]
    updates, state = one_step(lookbehind(base, k=1, alpha=alpha))
    expected, expected_state = one_step(member)
    # To the last bit, in float32: α (f − φ) is exact.
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)


@pytest.mark.parametrize(
    "member",
    [
        lb.multistep_sam,
        lb.lookbehind_sam,
        lb.multistep_asam,
        functools.partial(lb.lookbehind_asam, alpha=lb.adaptive_alpha()),
    ],
)
def test_without_a_climb_it_is_the_base(member):
    base = lenient(optax.adam(0.1))
    updates, state = one_step(member(base, k=0))
    expected, base_state = one_step(base)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    jax.tree.map(np.testing.assert_array_equal, state.base_state, base_state)
    assert state.alpha == 1


def test_without_a_climb_the_base_gets_the_functions():
    """A base optimizer that searches along lines needs the loss."""
    params = jnp.array([1.0, -2.0])
    loss = lambda p: jnp.sum(p**4)
    lbfgs = lenient(optax.lbfgs())
    optimizer = lb.lookbehind_sam(lbfgs, k=0)
    value, grads = jax.value_and_grad(loss)(params)

    @functools.partial(jax.jit, static_argnums=0)
    def update(optimizer, state):
        extra = dict(value=value, grad=grads, value_fn=loss)
        return optimizer.update(grads, state, params, **extra)[0]

    updates = update(optimizer, optimizer.init(params))
    expected = update(lbfgs, lbfgs.init(params))
    np.testing.assert_array_equal(updates, expected)
