"""What Optax expects of an optimizer, for every member."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.comparisons import without_keys
from tests.library.lenient import lenient
from tests.library.members import each
from tests.library.members import MEMBERS
from tests.library.members import SGD
from tests.library.members import SHARPNESS_AWARE
from tests.library.problems import gradient_step
from tests.library.problems import mixed_tensors
from tests.library.problems import parabola
from tests.library.problems import rosenbrock

# Those that keep something of their own beside the base's state, a copy of the
# parameters or a key.
COPIES = {"friendly_sam": 1, "lookbehind_friendly_sam": 1}
STATELESS = [n for n in SHARPNESS_AWARE if n not in {*COPIES, "random"}]

every_member = pytest.mark.parametrize("name", MEMBERS)
each_member = pytest.mark.parametrize("name", each(MEMBERS))


@functools.cache
def compiled(name, dtype="float32"):
    """A member over SGD, and its step along the parabola, shared by tests."""
    optimizer = MEMBERS[name](optax.sgd(0.01, momentum=0.9))
    _, _, loss = parabola(dtype)
    step = functools.partial(gradient_step, optimizer, loss, unexpected=1)
    return optimizer, jax.jit(step)


@each_member
def test_unknown_extra_arguments_and_one_compilation(name):
    optimizer, step = compiled(name)
    params, _, _ = parabola()
    state = optimizer.init(params)
    for _ in range(3):
        params, state, _ = step(params, state)
    assert step._cache_size() == 1


@each_member
def test_extra_arguments_reach_the_base(name):
    """Behind every member, `reduce_on_plateau` gets the `value` that it needs."""
    base = optax.chain(
        optax.sgd(0.1), lenient(optax.contrib.reduce_on_plateau(patience=1))
    )
    optimizer = MEMBERS[name](base)
    params, _, loss = parabola()
    state = optimizer.init(params)
    step = jax.jit(
        lambda params, state: gradient_step(
            optimizer, loss, params, state, value=jnp.float32(7.0)
        )
    )
    for _ in range(3):
        params, state, _ = step(params, state)
    plateau = optax.tree.get(_base_of(state), "ReduceLROnPlateauState")
    # The first step sets the best value; the two after it are without improvement,
    # each a tenth, however many inner steps there are.
    np.testing.assert_allclose(plateau.scale, 0.01, rtol=1e-6)


@every_member
def test_map_params(name):
    """Leaves shaped like parameters are found behind every member, and only those."""
    optimizer = MEMBERS[name](SGD)
    params, _, _ = mixed_tensors()
    state = optimizer.init(params)
    same = optax.tree.map_params(optimizer, lambda x: x, state)
    chex.assert_trees_all_equal(state, same)
    marked = optax.tree.map_params(
        optimizer, lambda _: 1, state, transform_non_params=lambda _: 0
    )
    copies = 1 + COPIES.get(name, 0) + name.startswith("lookahead")
    copies += name == "lookahead_pullback"
    assert sum(jax.tree.leaves(marked)) == copies * len(jax.tree.leaves(params))


@each_member
@pytest.mark.parametrize(
    "problem", each([parabola, rosenbrock, mixed_tensors], [rosenbrock])
)
def test_convergence_inside_a_scan(name, problem):
    # The ascent has a fixed length, so that iterates circle at a distance that grows
    # with ρ, the more so in a valley a thousand times steeper than it is long.
    member = MEMBERS[name]
    if name in SHARPNESS_AWARE or "sam" in name:
        member = functools.partial(member, rho=1e-5)
    optimizer = member(optax.sgd(1e-3))
    params, target, loss = problem()
    final, _ = jax.jit(
        lambda params: jax.lax.scan(
            lambda carry, _: (gradient_step(optimizer, loss, *carry)[:2], None),
            (params, optimizer.init(params)),
            length=30_000,
        )[0]
    )(params)
    chex.assert_trees_all_close(final, target, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    "name",
    each(n for n in MEMBERS if n not in ("lookahead_sam", "lookahead_lookbehind_sam")),
)
def test_inject_hyperparams(name):
    """Every number becomes state under `inject_hyperparams`, and means the same."""
    factory = MEMBERS[name]
    base = SGD
    numbers = {"rho", "alpha", "eta", "gamma", "sigma", "decay"}
    static = set(inspect.signature(factory).parameters) & {"k"}
    injected = lenient(optax.inject_hyperparams(factory, static_args=static)(base))
    plain = factory(base)
    params, _, loss = mixed_tensors()
    state, injected_state = plain.init(params), jax.jit(injected.init)(params)
    taken = set(injected_state.hyperparams)
    assert taken <= numbers
    assert taken, "nothing was injected"
    step, injected_step = (
        jax.jit(functools.partial(gradient_step, optimizer, loss))
        for optimizer in (plain, injected)
    )
    for _ in range(3):
        expected, state, updates = step(params, state)
        _, injected_state, got = injected_step(params, injected_state)
        chex.assert_trees_all_close(got, updates, rtol=1e-5, atol=1e-7)
        chex.assert_trees_all_close(
            *map(without_keys, (injected_state.inner_state, state)),
            rtol=1e-5,
            atol=1e-7,
        )
        params = expected


DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64"]


@each_member
@pytest.mark.parametrize("dtype", each(DTYPES, ["bfloat16", "complex64"]))
def test_dtypes_are_kept(name, dtype):
    """Updates have the parameters' dtype; the state's dtypes never change."""
    with jax.enable_x64(dtype == "float64"):
        optimizer, step = compiled(name, dtype)
        params, _, loss = parabola(dtype)
        state = optimizer.init(params)
        types = jax.tree.map(jax.typeof, state)
        before = loss(params)
        for _ in range(2):
            params, state, updates = step(params, state)
            assert updates.dtype == dtype
            assert params.dtype == dtype
            assert jax.tree.map(jax.typeof, state) == types
        assert loss(params) < before


@each_member
@pytest.mark.parametrize("base", each(["sgd", "adam"], ["adam"]))
def test_mixed_dtypes_and_wider_gradients(name, base):
    bases = {"sgd": SGD, "adam": optax.adam(0.1)}
    optimizer = MEMBERS[name](lenient(bases[base]))
    params = {
        "kernel": jnp.ones(3, jnp.bfloat16),
        "bias": jnp.ones(2, jnp.float32),
    }
    grad = jax.grad(
        lambda p: sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(p))
    )
    grads = jax.tree.map(lambda g: g.astype(jnp.float32), grad(params))
    state = optimizer.init(params)
    update = functools.partial(optimizer.update, grad_fn=lambda p, i: grad(p))
    updates, new_state = jax.eval_shape(update, grads, state, params)
    chex.assert_trees_all_equal_dtypes(updates, params)
    if name in SHARPNESS_AWARE:  # Lookahead's is the base's own affair
        chex.assert_trees_all_equal_dtypes(new_state, state)


@each_member
def test_base_with_a_random_key(name):
    optimizer = MEMBERS[name](lenient(optax.noisy_sgd(0.1, key=jax.random.key(0))))
    params, _, loss = parabola()
    state = optimizer.init(params)
    key = jax.random.key_data(optax.tree.get(_base_of(state), "rng_key"))
    step = jax.jit(functools.partial(gradient_step, optimizer, loss))
    for _ in range(2):
        params, state, _ = step(params, state)
    assert (
        jax.random.key_data(optax.tree.get(_base_of(state), "rng_key")) != key
    ).any()
    assert jnp.isfinite(params).all()


def _base_of(state):
    while hasattr(state, "base_state"):
        state = state.base_state
    return state


@each_member
def test_chained_with_members_before_and_after(name):
    params, _, loss = parabola()
    base = optax.sgd(0.1)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1e-3),
        MEMBERS[name](base),
        lenient(optax.contrib.reduce_on_plateau()),
        optax.scale(0.5),
    )
    step = functools.partial(gradient_step, optimizer, loss, value=jnp.float32(1.0))
    _, _, updates = jax.jit(step)(params, optimizer.init(params))
    # Clipping before a member changes the incoming gradient only, which is the scale
    # of the first ascent, and so nothing, unless the member descends along it. (On this
    # loss it is parallel to the perturbed one, and GSAM takes off what is orthogonal.)
    alone = MEMBERS[name](base)
    step = functools.partial(gradient_step, alone, loss)
    _, _, expected = jax.jit(step)(params, alone.init(params))
    if name in SHARPNESS_AWARE and not name.endswith(("k0", "wsam")):
        chex.assert_trees_all_close(updates, 0.5 * expected, rtol=1e-5)


@each_member
def test_multi_steps(name):
    """Called once with the mean gradient, every fourth time, and silent in between."""
    params, _, loss = parabola()
    optimizer = MEMBERS[name](optax.sgd(0.1))
    accumulating = optax.MultiSteps(optimizer, every_k_schedule=4)
    state = accumulating.init(params)

    @jax.jit
    def step(params, state):
        with jax.numpy_dtype_promotion("standard"):  # MultiSteps needs it
            return gradient_step(accumulating, loss, params, state)

    for _ in range(3):
        params, state, updates = step(params, state)
        np.testing.assert_array_equal(updates, jnp.zeros_like(params))
    _, _, updates = step(params, state)
    alone = jax.jit(functools.partial(gradient_step, optimizer, loss))
    _, _, expected = alone(params, optimizer.init(params))
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)


@each_member
def test_learning_rate_schedule_ticks_once_a_step(name):
    rates = [0.1, 0.05, 0.005, 0.2]
    schedule = lambda count: jnp.array(rates)[count]
    params, _, loss = parabola()
    scheduled = MEMBERS[name](optax.sgd(schedule))
    state = scheduled.init(params)
    step = jax.jit(functools.partial(gradient_step, scheduled, loss))

    @jax.jit
    def with_constant(rate, params, state):
        base = optax.sgd(rate)
        state = _with_base(state, base, params)
        return gradient_step(MEMBERS[name](base), loss, params, state)

    for rate in rates:
        _, _, expected = with_constant(rate, params, state)
        new_params, state, updates = step(params, state)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5)
        params = new_params
    counts = optax.tree.get_all_with_path(state, "ScaleByScheduleState")
    assert int(counts[-1][1].count) == 4


def _with_base(state, base, params):
    """The state with that of a base without a schedule at its bottom."""
    if not hasattr(state, "base_state"):
        return base.init(params)
    replaced = state._replace(base_state=_with_base(state.base_state, base, params))
    if getattr(state, "last_sync", None) is not None:
        replaced = replaced._replace(last_sync=base.init(params))
    return replaced


@each_member
def test_sharding_in_types(name):
    """The state's shardings follow the parameters', and an update changes none."""
    optimizer = MEMBERS[name](SGD)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharding = jax.sharding.NamedSharding(mesh, jax.P(None, "x"))
        params = jnp.ones((2, 8, 4), jnp.float16, out_sharding=sharding)
        grad = jax.grad(lambda p: jnp.sum(p.astype(jnp.float32) ** 2))
        state = optimizer.init(params)
        updates, new_state = jax.jit(
            lambda g, s, p: optimizer.update(g, s, p, grad_fn=lambda p, i: grad(p))
        )(grad(params), state, params)
        types = jax.tree.map(jax.typeof, state)
        assert jax.tree.map(jax.typeof, jax.jit(optimizer.init)(params)) == types
        assert jax.tree.map(jax.typeof, new_state) == types
        assert jax.typeof(updates) == jax.typeof(params)
        assert jnp.isfinite(updates).all()


@each_member
def test_params_and_state_can_be_donated(name):
    optimizer, step = compiled(name)
    donating = jax.jit(step, donate_argnums=(0, 1))
    params = jnp.copy(parabola()[0])
    state = optimizer.init(params)  # a state that aliased params could not be donated
    for _ in range(3):
        expected = step(params, state)
        donated = params, state
        params, state, updates = donating(*donated)
        chex.assert_trees_all_equal((params, state, updates), expected)
        # What a step doesn't read, such as the last α, stays as it was.
        given = donated[0], _base_of(donated[1])
        assert all(x.is_deleted() for x in jax.tree.leaves(given))


@pytest.mark.parametrize(
    "names",
    each([STATELESS, list(COPIES)], [list(COPIES)]),
    ids=["stateless", "friendly"],
)
def test_sharpness_aware_members_share_one_state(names):
    """Any member can continue from the state of any other over a direction
    with the same state."""
    base = lenient(optax.adam(0.01))
    params, _, loss = parabola()
    state = MEMBERS[names[0]](base).init(params)
    for name in names:
        optimizer = MEMBERS[name](base)
        fresh = optimizer.init(params)
        chex.assert_trees_all_equal_shapes_and_dtypes(fresh, state)
        assert jax.tree.structure(fresh) == jax.tree.structure(state)
        step = jax.jit(functools.partial(gradient_step, optimizer, loss))
        params, state, _ = step(params, state)
    assert state.count == len(names)


@pytest.mark.parametrize(
    "mask",
    each([None, {"kernel": True, "bias": False}], [{"kernel": True, "bias": False}]),
)
def test_phases_with_and_without_a_mask_share_one_state(mask):
    params, _, loss = mixed_tensors()
    state = lb.sam(optax.sgd(0.1)).init(params)
    masked = lb.lookbehind_sam(optax.sgd(0.1), mask=mask)
    assert jax.tree.structure(masked.init(params)) == jax.tree.structure(state)
    gradient_step(masked, loss, params, state)


@pytest.mark.parametrize("name", STATELESS)
def test_state_holds_scalars_only_beside_the_base(name):
    params, _, _ = mixed_tensors()
    state = MEMBERS[name](optax.sgd(0.1)).init(params)
    assert all(jnp.shape(leaf) == () for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("alpha", [0.25, 0.75])
@pytest.mark.parametrize("name", ["rho", "alpha"])
def test_schedules_of_rho_and_alpha_count_steps(name, alpha):
    params, _, loss = parabola()
    base = optax.sgd(0.01)
    values = [0.1, alpha]
    schedule = lambda count: jnp.array(values)[count]
    scheduled = lb.lookbehind_sam(base, **{name: schedule})
    state = scheduled.init(params)
    step = jax.jit(functools.partial(gradient_step, scheduled, loss))

    @jax.jit
    def with_constant(value, params):
        constant = lb.lookbehind_sam(base, **{name: value})
        return gradient_step(constant, loss, params, constant.init(params))

    for value in values:
        _, _, expected = with_constant(value, params)
        params, state, updates = step(params, state)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)


@pytest.mark.parametrize("how", each(["by hand", "make_step"], ["make_step"]))
@each_member
def test_jax_finds_no_nans_and_no_infinities(name, how):
    """Not in the state either, where a loss is not known by hand."""
    optimizer = MEMBERS[name](optax.sgd(0.01, momentum=0.9))
    params, _, loss = parabola()
    step = functools.partial(gradient_step, optimizer, loss)
    if how == "make_step":
        step = lb.make_step(loss, optimizer)
    with jax.debug_nans(True), jax.debug_infs(True):
        state = optimizer.init(params)
        for _ in range(2):
            params, state, _ = jax.jit(step)(params, state)
        jax.block_until_ready(state)


def test_jax_finds_an_infinity_that_is_there():
    optimizer = lb.sam(optax.sgd(jnp.inf))
    params, _, loss = parabola()
    step = jax.jit(lb.make_step(loss, optimizer))
    with jax.debug_infs(True), pytest.raises(FloatingPointError):
        step(params, optimizer.init(params))
