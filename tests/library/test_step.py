"""The step that a loss and an optimizer make."""

import functools
from typing import Any

import chex
from flax.training.dynamic_scale import DynamicScale
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.comparisons import assert_close
from tests.library.comparisons import without_perturbed_loss
from tests.library.lenient import lenient
from tests.library.members import each
from tests.library.members import FEW
from tests.library.members import GROUPED
from tests.library.members import OTHERS
from tests.library.members import SGD
from tests.library.problems import Groups
from tests.library.problems import mesh_of
from tests.library.problems import regression as problem
from tests.library.problems import regression_loss as loss_fn

each_member = pytest.mark.parametrize("name", each(FEW, ["lookbehind_sam_2k"]))


def bare_step(optimizer, loss, extra=lambda loss, params, grads: {}):
    """The step as it is written without `make_step`."""

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(params)
        updates, state = optimizer.update(
            grads, state, params, **extra(loss, params, grads)
        )
        return optax.apply_updates(params, updates), state

    return step


def with_grad_fn(loss, params, grads):
    return {"grad_fn": lambda p, i: jax.grad(loss)(p)}


# Any optimizer, through the same line.


def with_value(loss, params, grads):
    return {"value": loss(params)}


def for_line_search(loss, params, grads):
    return {"value": loss(params), "grad": grads, "value_fn": loss}


normalized = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
OPTIMIZERS = {
    "adam": (lenient(optax.adam(0.1)), lambda *_: {}),
    "lbfgs": (lenient(optax.lbfgs()), for_line_search),
    "backtracking": (
        lenient(optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5))),
        for_line_search,
    ),
    "polyak_sgd": (optax.polyak_sgd(), with_value),
    "reduce_on_plateau": (
        lenient(optax.chain(SGD, optax.contrib.reduce_on_plateau(patience=1))),
        with_value,
    ),
    "contrib.sam": (
        optax.contrib.sam(optax.sgd(0.1), normalized, opaque_mode=True),
        with_grad_fn,
    ),
    "contrib.sam in a chain": (
        optax.chain(
            optax.clip(1.0),
            optax.contrib.sam(optax.sgd(0.1), normalized, opaque_mode=True),
        ),
        with_grad_fn,
    ),
    "lookbehind around lbfgs, k = 0": (
        lb.lookbehind_sam(lenient(optax.lbfgs()), k=0),
        for_line_search,
    ),
    "lookbehind before reduce_on_plateau": (
        lenient(
            optax.chain(
                lb.lookbehind_sam(SGD), optax.contrib.reduce_on_plateau(patience=1)
            )
        ),
        lambda *them: with_value(*them) | with_grad_fn(*them),
    ),
    **{name: (member(SGD), with_grad_fn) for name, member in FEW.items()},
}


@pytest.mark.parametrize(
    "name",
    each(
        OPTIMIZERS,
        {
            *("contrib.sam in a chain", "lookbehind_asam_adaptive", "friendly_sam"),
            *("lookbehind before reduce_on_plateau", "lookahead_sam"),
        },
        slow=["lbfgs"],
    ),
)
def test_any_optimizer_steps_as_by_hand(name):
    optimizer, extra = OPTIMIZERS[name]
    params, batch = problem()
    expected = bare_step(optimizer, lambda p: loss_fn(p, *batch), extra)
    step = jax.jit(lb.make_step(loss_fn, optimizer))
    there = here = (params, optimizer.init(params))
    for _ in range(4):
        there = expected(*there)
        clean = loss_fn(here[0], *batch)
        grad_norm = optax.tree.norm(jax.grad(loss_fn)(here[0], *batch))
        *here, out = step(*here, *batch)
        assert_close((out.loss, out.grad_norm), (clean, grad_norm))
    assert_close(without_perturbed_loss(here), without_perturbed_loss(there), 1e-5)
    # L-BFGS starts with weak types, and so compiles a second time.
    assert step._cache_size() == expected._cache_size()


def test_a_transformation_without_extra_arguments():
    plain = optax.GradientTransformation(*optax.sgd(0.1))
    params, batch = problem()
    _, _, out = lb.make_step(loss_fn, plain)(params, plain.init(params), *batch)
    assert out.perturbed_loss == out.loss
    assert out.alpha == 1


# ½p² from p = 1 with ρ = 0.1: the climb goes through 1.1 and 1.2.
BY_HAND = {
    "sam": (lb.sam(optax.sgd(0.1), 0.1), 1.1**2 / 2, 1.0),
    "multistep": (lb.multistep_sam(optax.sgd(0.1), 0.1), 1.2**2 / 2, 1.0),
    "lookbehind": (lb.lookbehind_sam(optax.sgd(0.1), 0.1), 1.2**2 / 2, 0.5),
    "2k": (
        lb.lookbehind_sam(optax.sgd(0.1), 0.1, reuse_gradients=False),
        1.2**2 / 2,
        0.5,
    ),
    "in a chain": (
        optax.chain(lb.lookahead(lb.sam(optax.sgd(0.1), 0.1)), optax.clip(1.0)),
        1.1**2 / 2,
        1.0,
    ),
    "gsam": (lb.gsam(optax.sgd(0.1), 0.1), 1.1**2 / 2, 1.0),
    "wsam": (lb.wsam(optax.sgd(0.1), 0.1), 1.1**2 / 2, 1.0),
    "friendly_sam": (lb.friendly_sam(optax.sgd(0.1), 0.1), 1.1**2 / 2, 1.0),
    "k = 3, by default": (lb.lookbehind_sam(optax.sgd(0.1), 0.1, 3), 1.3**2 / 2, 1 / 3),
    "k = 0": (lb.lookbehind_sam(optax.sgd(0.1), k=0), 0.5, 1.0),
    "sgd": (optax.sgd(0.1), 0.5, 1.0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_what_the_climb_saw(name):
    optimizer, perturbed_loss, alpha = BY_HAND[name]
    params = jnp.array(1.0)
    step = lb.make_step(lambda p: (p**2 / 2, {"p": p}), optimizer, has_aux=True)
    _, _, out = jax.jit(step)(params, optimizer.init(params))
    np.testing.assert_allclose(out.perturbed_loss, perturbed_loss, rtol=1e-6)
    assert (out.loss, out.grad_norm, out.alpha) == (0.5, 1.0, jnp.float32(alpha))
    assert out.aux == {"p": 1.0}  # of the clean pass
    assert {x.dtype for x in jax.tree.leaves(out)} == {jnp.dtype("float32")}


def test_out_has_one_structure():
    params = jnp.array(1.0)
    outs = [
        jax.eval_shape(
            lb.make_step(lambda p: p**2, optimizer), params, optimizer.init(params)
        )[2]
        for optimizer, *_ in BY_HAND.values()
    ]
    assert len({jax.tree.structure(out) for out in outs}) == 1


@pytest.mark.parametrize("reuse", [True, False], ids=["k+1", "2k"])
@pytest.mark.parametrize("k", [0, 1, 3])
def test_no_further_gradient_evaluation(k, reuse):
    """Forward passes, counted as they run."""
    calls = []

    def counted(p):
        jax.debug.callback(lambda: calls.append(None))
        return jnp.sum(p**2)

    optimizer = lb.lookbehind_sam(SGD, k=k, reuse_gradients=reuse)
    params = jnp.ones(3)
    jax.block_until_ready(
        jax.jit(lb.make_step(counted, optimizer))(params, optimizer.init(params))
    )
    jax.effects_barrier()
    assert len(calls) == (k + 1 if reuse else max(2 * k, 1))


@each_member
def test_as_many_flops_as_the_bare_step(name):
    optimizer = FEW[name](SGD)
    params, batch = problem(examples=512, width=256)
    bare = bare_step(optimizer, lambda p: loss_fn(p, *batch), with_grad_fn)
    step = jax.jit(
        lambda params, state: lb.make_step(loss_fn, optimizer)(params, state, *batch)
    )

    def flops(f):
        analysis = f.lower(params, optimizer.init(params)).compile().cost_analysis()
        assert analysis is not None
        return analysis["flops"]

    # The loss itself, which the bare step doesn't compute, has a share of 1 %.
    assert flops(step) <= 1.02 * flops(bare)


def test_the_step_can_be_donated_and_needs_no_jit():
    params, batch = problem()
    optimizer = lb.lookbehind_sam(SGD)
    step = lb.make_step(loss_fn, optimizer)
    expected = step(params, optimizer.init(params), *batch)
    donating = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, params)
    actual = donating(params, optimizer.init(params), *batch)
    assert all(x.is_deleted() for x in jax.tree.leaves(params))
    assert_close(actual, expected)


def test_complex_parameters():
    """Descent, as Optax's conjugated gradients give it."""
    params = jnp.array([1 + 2j, -1j], jnp.complex64)
    optimizer = lb.sam(optax.sgd(0.1), rho=0.0)
    step = lb.make_step(lambda p: jnp.sum(jnp.abs(p) ** 2), optimizer)
    params_after, _, _ = step(params, optimizer.init(params))
    assert_close(params_after, jnp.complex64(0.8) * params)


# Switching the minibatch.


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("reuse", [True, False], ids=["k+1", "2k"])
def test_minibatches_switch(reuse, micro_batches):
    """Minibatch i has the loss slope · p; each inner step descends on its own."""
    slopes = jnp.array([[0.0, 2.0], [-1.0, -3.0], [3.0, 3.0]])  # means 1, -2, 3
    seen = []

    def loss(p, slopes):
        note = lambda slope, p: seen.append((float(slope), float(p)))
        jax.debug.callback(note, slopes.mean(), p)
        return slopes.mean() * p

    optimizer = lb.lookbehind_sam(
        optax.sgd(1.0), rho=0.5, k=3, alpha=1.0, reuse_gradients=reuse
    )
    step = lb.make_step(
        loss, optimizer, switch_minibatches=True, micro_batches=micro_batches
    )
    params = jnp.array(0.0)
    params, _, out = jax.jit(step)(params, optimizer.init(params), slopes)
    jax.effects_barrier()
    assert params == -(1 - 2 + 3)
    assert out.perturbed_loss == (3 * 0.5)
    if micro_batches == 1 and reuse:  # k + 1 gradients for k minibatches
        assert sorted(seen) == [(-2, 1.0), (1, 0.0), (1, 0.5), (3, 0.5)]
    elif micro_batches == 1:  # each minibatch twice: 2k gradients
        points = [(-2, 0.0), (-2, 0.5), (1, 0.0), (1, 0.5), (3, 0.0), (3, 0.5)]
        assert sorted(seen) == points


def test_one_minibatch_for_a_base_optimizer():
    """The phase before the climb: k = 0 takes its one minibatch."""
    params, (x, y) = problem()
    optimizer = lb.lookbehind_sam(SGD, k=0)
    switching = lb.make_step(loss_fn, optimizer, switch_minibatches=True)
    assert_close(
        switching(params, optimizer.init(params), x[None], y[None]),
        lb.make_step(loss_fn, optimizer)(params, optimizer.init(params), x, y),
    )


# m-SAM.


@pytest.mark.parametrize(
    "name", each(GROUPED, ["lookbehind_asam_adaptive", "friendly_sam"])
)
def test_groups_of_m_equal_a_loop_over_groups(name, x64):
    groups = Groups()
    axis = {"axis_name": "group"}
    optimizer = GROUPED[name].make(groups.base, groups.rho, groups.k, **axis)
    params, state = groups.params, optimizer.init(groups.params)
    step = jax.jit(lb.make_step(loss_fn, optimizer, m=groups.size, **axis))
    for wanted in groups.trajectory(GROUPED[name]):
        clean = loss_fn(params, *groups.batch)
        params, state, out = step(params, state, *groups.batch)
        chex.assert_trees_all_close(params, wanted, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(out.loss, clean, rtol=1e-10)


def test_one_group_is_the_batch():
    params, batch = problem()
    optimizer = lb.sam(SGD, axis_name="group")
    step = jax.jit(lb.make_step(loss_fn, optimizer, m=24, axis_name="group"))
    plain = lb.sam(SGD)
    assert_close(
        step(params, optimizer.init(params), *batch),
        jax.jit(lb.make_step(loss_fn, plain))(params, plain.init(params), *batch),
    )


@pytest.mark.parametrize("micro_batches", each([1, 2], [2]))
@pytest.mark.parametrize(
    "name",
    each(
        ["adam", "lbfgs", "backtracking", "contrib.sam", "reduce_on_plateau"],
        ["adam", "contrib.sam"],
        slow=["lbfgs"],
    ),
)
def test_groups_do_nothing_to_other_optimizers(name, micro_batches):
    optimizer, _ = OPTIMIZERS[name]
    params, batch = problem()
    split = lb.make_step(
        loss_fn, optimizer, m=4, axis_name="group", micro_batches=micro_batches
    )
    split, whole = jax.jit(split), jax.jit(lb.make_step(loss_fn, optimizer))
    here = there = params, optimizer.init(params)
    for _ in range(3):
        *here, out = split(*here, *batch)
        *there, expected = whole(*there, *batch)
        assert_close((here, out), (there, expected), rtol=1e-5)


@pytest.mark.parametrize("m", each([4, 12], [4]))
def test_a_wrapper_around_groups(m):
    """`apply_if_finite` asks about the groups' one update."""
    params, batch = problem()
    sam = lb.sam(SGD, rho=0.5, axis_name="group")
    guarded = optax.apply_if_finite(sam, 3)
    step, bare = (
        jax.jit(lb.make_step(loss_fn, optimizer, m=m, axis_name="group"))
        for optimizer in (guarded, sam)
    )
    here, state, out = step(params, guarded.init(params), *batch)
    there, inner_state, expected = bare(params, sam.init(params), *batch)
    assert_close((here, state.inner_state, out), (there, inner_state, expected))
    # Where one group's update isn't finite, that of none is.
    x, y = batch
    spoilt = x.at[0, 0].set(jnp.nan)
    after, state, _ = step(params, state, spoilt, y)
    chex.assert_trees_all_equal(after, params)
    assert state.notfinite_count == 1


# Inside the user's own axes, of `shard_map` with its checks.


def over_two_devices(function, in_specs, out_specs):
    specs = {"in_specs": in_specs, "out_specs": out_specs}
    return jax.jit(jax.shard_map(function, mesh=mesh_of(2), **specs))


@pytest.mark.parametrize("micro_batches", each([1, 3], [3]))
@pytest.mark.parametrize(
    "name",
    each(["sam", "lookbehind_sam", "sgd", "contrib.sam"], ["lookbehind_sam"]),
)
def test_devices_are_groups(name, micro_batches):
    """As groups of half the batch are on one device."""
    optimizer = {
        "sam": lb.sam(SGD, axis_name="data"),
        "lookbehind_sam": lb.lookbehind_sam(SGD, k=3, axis_name="data"),
        "sgd": SGD,
        "contrib.sam": OPTIMIZERS["contrib.sam"][0],
    }[name]
    params, batch = problem()
    key = jax.random.key(3)
    step = lb.make_step(
        dropped, optimizer, axis_name="data", micro_batches=micro_batches
    )
    on_one = jax.jit(
        lb.make_step(
            dropped, optimizer, axis_name="data", micro_batches=micro_batches, m=12
        )
    )
    share = jax.P("data")
    on_two = over_two_devices(
        lambda params, state, x, y, key: step(params, state, x, y, key=key),
        (jax.P(), jax.P(), share, share, jax.P()),
        jax.P(),
    )
    arguments = params, optimizer.init(params), *batch
    assert_close(on_two(*arguments, key), on_one(*arguments, key=key))


@pytest.mark.thorough
def test_arguments_that_are_no_examples_beside_an_axis():
    """An axis alone splits nothing: a scalar and a key may be positional."""
    params, (x, _) = problem()
    optimizer = lb.sam(SGD, axis_name="data")

    def loss(params, x, scale, key):
        return scale * loss_fn(params, x, jax.random.normal(key, (len(x), 2)))

    step = lb.make_step(loss, optimizer, axis_name="data")
    on_two = over_two_devices(
        step, (jax.P(), jax.P(), jax.P("data"), jax.P(), jax.P()), jax.P()
    )
    key = jax.random.key(0)
    _, _, out = on_two(params, optimizer.init(params), x, jnp.float32(2.0), key)
    each = [
        jax.jit(loss)(params, x[12 * j : 12 * j + 12], 2.0, jax.random.fold_in(key, j))
        for j in range(2)
    ]
    np.testing.assert_allclose(out.loss, np.mean(each), rtol=1e-6)


def test_an_ensemble_over_devices():
    """Parameters that differ from device to device, and no axis to average over."""
    params, batch = problem()
    optimizer = lb.lookbehind_sam(SGD, k=3)
    step = lb.make_step(loss_fn, optimizer, micro_batches=2)
    both = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)

    def train(params, x, y):
        params = jax.tree.map(lambda p: p[0], params)
        params, _, _ = step(params, optimizer.init(params), x, y)
        return jax.tree.map(lambda p: p[None], params)

    on_two = over_two_devices(train, (jax.P("data"), jax.P(), jax.P()), jax.P("data"))
    after, alone = on_two(both, *batch), jax.jit(step)
    for i in range(2):
        one = jax.tree.map(lambda p, i=i: p[i], both)
        expected, _, _ = alone(one, optimizer.init(one), *batch)
        assert_close(jax.tree.map(lambda p, i=i: p[i], after), expected)


# Gradient accumulation.


@each_member
def test_micro_batches_give_the_same_step(name, x64):
    optimizer = FEW[name](SGD)
    params, batch = problem(jnp.float64)

    def with_aux(params, x, y):
        return loss_fn(params, x, y), {
            "mean": x.mean(0),
            "dtype": jnp.bfloat16(1.0),
        }

    results = [
        jax.jit(lb.make_step(with_aux, optimizer, has_aux=True, micro_batches=n))(
            params, optimizer.init(params), *batch
        )
        for n in (1, 4)
    ]
    assert_close(*results, rtol=1e-12)
    chex.assert_trees_all_equal_shapes_and_dtypes(*results)


@pytest.mark.thorough
def test_micro_batches_with_groups_and_switching(x64):
    params, (x, y) = problem(jnp.float64)
    minibatches = x.reshape(2, 12, 5), y.reshape(2, 12, 2)
    optimizer = lb.lookbehind_sam(SGD, axis_name="group")
    options = dict(switch_minibatches=True, m=6, axis_name="group")
    results = [
        jax.jit(lb.make_step(loss_fn, optimizer, micro_batches=n, **options))(
            params, optimizer.init(params), *minibatches
        )
        for n in (1, 3)
    ]
    assert_close(*results, rtol=1e-12)


@pytest.mark.parametrize(
    "name", each(["lookbehind_sam", "lookbehind_sam_k0"], ["lookbehind_sam"])
)
def test_micro_batches_save_memory(name):
    optimizer = FEW[name](SGD)
    params = {"kernel": jnp.ones((8, 64))}

    def wide(params, x):  # its memory is that of the activations
        h = x
        for _ in range(4):
            h = jnp.tanh(h @ params["kernel"] @ params["kernel"].T)
        return jnp.mean(h**2)

    def temporary(n):
        step = jax.jit(lb.make_step(wide, optimizer, micro_batches=n))
        arguments = params, optimizer.init(params), jnp.ones((4096, 8))
        memory = step.lower(*arguments).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporary(8) < temporary(1) / 4


@pytest.mark.parametrize("convolution", [False, True])
def test_micro_batches_are_a_loop_without_a_convolution(convolution):
    """On CPUs; as the climb, they go through one place."""
    x = jnp.ones((12, 8))
    params = {"kernel": jnp.ones((8, 8)), "filter": jnp.ones((1, 1, 3))}

    def loss(params, x):
        h = jnp.tanh(x @ params["kernel"])
        if convolution:
            h = jax.lax.conv(h[:, None], params["filter"], (1,), "SAME")
        return jnp.mean(h**2)

    step = lb.make_step(loss, SGD, micro_batches=3)
    compiled: Any = jax.jit(step).lower(params, SGD.init(params), x).compile()
    assert compiled.as_text().count(" while(") == (not convolution)


def test_micro_batches_take_every_nth_example():
    """So that the shards of a sharded batch stay where they are."""
    params = jnp.array(0.0)
    loss = lambda p, x: (p * x.mean(), {"first": x[0], "last": x[-1]})
    step = jax.jit(lb.make_step(loss, optax.sgd(1.0), has_aux=True, micro_batches=2))
    _, _, out = step(params, optax.sgd(1.0).init(params), jnp.arange(6.0))
    assert out.aux == {"first": 0.5, "last": 4.5}


def test_micro_batches_are_added_up_in_float32():
    """256 + 1 is 256 in bfloat16."""
    params = jnp.zeros(3, jnp.bfloat16)
    slopes = jnp.array([256.0] + 15 * [1.0])[:, None] * jnp.ones((1, 3))

    def loss(params, slopes):
        slope = slopes.mean(0).astype(jnp.bfloat16)
        return jnp.sum(slope * params), slope

    step = jax.jit(lb.make_step(loss, SGD, has_aux=True, micro_batches=16))
    _, _, out = step(params, SGD.init(params), slopes)
    np.testing.assert_array_equal(out.aux, jnp.bfloat16(271 / 16))


# Keys.


def dropped(params, x, y, *, key):
    keep = jax.random.bernoulli(key, 0.5, x.shape)
    return loss_fn(params, jnp.where(keep, x, 0.0), y)


@pytest.mark.parametrize("fresh", [False, True])
def test_one_key_or_a_fresh_one_for_each_evaluation(fresh):
    params, batch = problem()
    optimizer = lb.lookbehind_sam(SGD, rho=1.0, k=3)
    key = jax.random.key(7)
    step = jax.jit(lb.make_step(dropped, optimizer, fresh_keys=fresh))
    actual, _, out = step(params, optimizer.init(params), *batch, key=key)

    def grad(p, key):
        return jax.grad(dropped)(p, *batch, key=key)

    @jax.jit
    def update(grads, state, params):
        return optimizer.update(
            grads,
            state,
            params,
            grad_fn=lambda p, i: grad(
                p, jax.random.fold_in(key, i + 1) if fresh else key
            ),
        )

    updates, _ = update(grad(params, key), optimizer.init(params), params)
    assert_close(actual, optax.apply_updates(params, updates))
    assert_close(out.loss, dropped(params, *batch, key=key))


@pytest.mark.parametrize("reuse", [True, False], ids=["k+1", "2k"])
@pytest.mark.parametrize("switch", each([False, True], [True]))
@pytest.mark.parametrize("k", each([0, 1, 3], [3]))
def test_as_many_keys_as_evaluations(k, reuse, switch):
    """Counted as they are used; without fresh ones, there is one."""
    seen = []

    def loss(params, x, *, key):
        jax.debug.callback(
            lambda key: seen.append(key.tobytes()), jax.random.key_data(key)
        )
        return jnp.mean((x - params) ** 2)

    optimizer = lb.lookbehind_sam(SGD, k=k, reuse_gradients=reuse)
    evaluations = k + 1 if reuse else max(2 * k, 1)
    params = jnp.ones(2)
    x = jnp.ones((max(k, 1), 4, 2)) if switch else jnp.ones((4, 2))
    for fresh, keys in ((True, evaluations), (False, 1)):
        seen.clear()
        step = lb.make_step(
            lambda p, x, *, key: loss(p[None], x, key=key),
            optimizer,
            fresh_keys=fresh,
            switch_minibatches=switch,
        )
        jax.jit(step)(params, optimizer.init(params), x, key=jax.random.key(0))
        jax.effects_barrier()
        assert len(seen) == evaluations
        assert len(set(seen)) == keys


@pytest.mark.parametrize("options", [{"m": 6, "axis_name": "g"}, {"micro_batches": 4}])
def test_parts_of_the_batch_fold_their_number_into_keys(options):
    params, (x, y) = problem()
    key = jax.random.key(7)
    step = jax.jit(lb.make_step(dropped, SGD, **options))
    _, _, out = step(params, SGD.init(params), x, y, key=key)
    strided = "micro_batches" in options
    parts = [
        (x[j::4], y[j::4]) if strided else (x[6 * j : 6 * j + 6], y[6 * j : 6 * j + 6])
        for j in range(4)
    ]
    losses = [
        jax.jit(dropped)(params, *part, key=jax.random.fold_in(key, j))
        for j, part in enumerate(parts)
    ]
    np.testing.assert_allclose(out.loss, np.mean(losses), rtol=1e-6)


def test_a_key_for_each_example():
    """Fresh ones change the loss though ρ = 0 perturbs nothing."""
    params, (x, y) = problem()
    keys = jax.random.split(jax.random.key(0), 24)
    noise = jax.vmap(lambda key: jax.random.normal(key, (5,)))
    whole = lambda p, x, y, keys: loss_fn(p, x + noise(keys), y)
    optimizer = lb.sam(SGD, rho=0.0)
    for fresh in (False, True):
        step = jax.jit(lb.make_step(whole, optimizer, fresh_keys=fresh))
        _, _, out = step(params, optimizer.init(params), x, y, keys)
        assert_close(out.loss, whole(params, x, y, keys))
        assert (abs(out.perturbed_loss - out.loss) > 1e-3) == fresh


# Low precision.


@pytest.mark.parametrize("dtype", each(["bfloat16", "float16"], ["bfloat16"]))
@each_member
def test_low_precision_compute(name, dtype):
    """Parameters in float32, the forward pass in less."""
    optimizer = FEW[name](SGD)
    params, batch = problem()

    def low(params, x, y):
        cast = functools.partial(optax.tree.cast, dtype=jnp.dtype(dtype))
        return loss_fn(cast(params), cast(x), cast(y))

    exact, _, _ = jax.jit(lb.make_step(loss_fn, optimizer))(
        params, optimizer.init(params), *batch
    )
    after, _, out = jax.jit(lb.make_step(low, optimizer))(
        params, optimizer.init(params), *batch
    )
    assert out.loss.dtype == jnp.float32
    moved = jax.tree.map(jnp.subtract, after, params)
    wanted = jax.tree.map(jnp.subtract, exact, params)
    error = optax.tree.norm(jax.tree.map(jnp.subtract, moved, wanted))
    # A bfloat16 has eight bits: relative errors of about 1/256, several times over.
    # WSAM takes nine times one gradient less eight times another.
    share = np.hypot(9, 8) if name == "wsam" else 1
    assert error < 0.03 * share * optax.tree.norm(wanted)


@pytest.mark.parametrize(
    ("name", "micro_batches"),
    each(
        [(name, n) for n in (1, 3) for name in FEW],
        [("lookbehind_sam_2k", 1)],
        slow=[(name, 3) for name in OTHERS],
    ),
)
def test_a_loss_scale_changes_no_direction(name, micro_batches):
    optimizer = FEW[name](SGD)
    params, batch = problem()
    state = optimizer.init(params)
    step = jax.jit(lb.make_step(loss_fn, optimizer, micro_batches=micro_batches))
    *expected, bare = step(params, state, *batch)
    scale = DynamicScale(scale=1024.0, growth_interval=1)
    for scale_after in (1024.0, 2048.0):  # the second finite step in a row
        *actual, out = step(params, state, *batch, dynamic_scale=scale)
        assert_close(actual, expected)  # a power of two is exact
        assert_close(out[:5], bare[:5])
        assert out.finite
        scale = out.dynamic_scale
        assert scale.scale == scale_after


def test_a_loss_scale_saves_small_float16_gradients():
    optimizer = lb.sam(optax.sgd(1.0), rho=1e-3)
    params = jnp.array([3.0, 4.0])

    def tiny(p):  # a gradient of 1e-8, which float16 doesn't have
        low = jnp.mean(jnp.float16(1e-4) * p.astype(jnp.float16))
        return jnp.float32(1e-4) * low.astype(jnp.float32)

    step = jax.jit(lb.make_step(tiny, optimizer))
    _, _, lost = step(params, optimizer.init(params))
    assert lost.grad_norm == 0
    _, _, out = step(
        params, optimizer.init(params), dynamic_scale=DynamicScale(scale=2.0**20)
    )
    np.testing.assert_allclose(out.grad_norm, 1e-8 / np.sqrt(2), rtol=0.01)


def test_a_loss_scale_for_complex_and_double_parameters(x64):
    """An imaginary part is kept, and so are the digits that float32 doesn't have."""
    params = jnp.array([1 + 2j])
    loss = lambda p: jnp.sum(jnp.abs(p - 1 / 3) ** 2)
    optimizer = lb.sam(optax.sgd(0.1), rho=0.5)
    step = jax.jit(lb.make_step(loss, optimizer))
    expected, _, _ = step(params, optimizer.init(params))
    actual, _, out = step(
        params, optimizer.init(params), dynamic_scale=DynamicScale(scale=4.0)
    )
    assert out.finite
    assert_close(actual, expected, rtol=1e-14)


CLIPPED = optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9))
OVERFLOWING = {
    "in the clean pass": (lb.sam(SGD), 12.0, {}),
    "of a base optimizer": (SGD, 12.0, {}),
    "where it is clipped": (CLIPPED, 12.0, {}),
    "on the climb": (lb.sam(SGD, rho=0.5), 11.0, {}),
    "on the climb, clipped": (lb.lookbehind_sam(CLIPPED, rho=0.5), 11.0, {}),
    "at the second ascent": (lb.multistep_sam(SGD, rho=0.07), 11.0, {}),
    "at the second ascent, averaged": (
        lb.multistep_sam(CLIPPED, rho=0.07, average=True),
        11.0,
        {},
    ),
    "of an unperturbed leaf": (
        lb.lookbehind_sam(CLIPPED, rho=0.5, mask={"a": True, "b": False}),
        11.0,
        {},
    ),
    "in one group": (
        lb.sam(CLIPPED, rho=0.5, axis_name="group"),
        11.0,
        {"m": 1, "axis_name": "group"},
    ),
    "in one micro-batch": (lb.sam(CLIPPED, rho=0.5), 11.0, {"micro_batches": 2}),
    "on the climb, with a base that skips it": (
        lb.sam(optax.apply_if_finite(SGD, 9), rho=0.5),
        11.0,
        {},
    ),
    "on the climb, and then zeroed": (
        optax.chain(lb.multistep_sam(SGD, rho=0.07), optax.zero_nans()),
        11.0,
        {},
    ),
    "in the clean pass, and then zeroed": (
        optax.chain(optax.zero_nans(), SGD),
        12.0,
        {},
    ),
    "with a key in the state": (
        lb.sam(lenient(optax.noisy_sgd(0.1, key=jax.random.key(0))), rho=0.5),
        11.0,
        {},
    ),
}


@pytest.mark.parametrize(
    "name",
    each(
        OVERFLOWING,
        [
            *("of a base optimizer", "of an unperturbed leaf", "in one group"),
            *("on the climb, clipped", "on the climb, and then zeroed"),
            "with a key in the state",
        ],
    ),
)
def test_an_overflowing_step_changes_nothing(name):
    """exp(11) is within float16, exp(12) is not."""
    optimizer, start, options = OVERFLOWING[name]

    def loss(p, x):
        hot = jnp.exp((p["a"] * x).astype(jnp.float16))
        # Nearly all of the ascent is along a.
        return jnp.mean(hot + hot * (p["b"] / 1000).astype(jnp.float16))

    params = {"a": jnp.array([start]), "b": jnp.array([1e-3])}
    state = optimizer.init(params)
    step = jax.jit(lb.make_step(loss, optimizer, **options))
    scale = DynamicScale(scale=1.0, fin_steps=5)
    batch = jnp.array([1.0, 0.5])
    *after, out = step(params, state, batch, dynamic_scale=scale)
    chex.assert_trees_all_equal(after, [params, state])
    assert not out.finite
    assert out.dynamic_scale.scale == 0.5
    assert out.dynamic_scale.fin_steps == 0
    # Where it doesn't overflow, the same step updates.
    cool = jax.tree.map(lambda p: p / 2, params)
    (a, _), _, out = step(cool, state, batch, dynamic_scale=scale)
    assert out.finite
    assert out.dynamic_scale.fin_steps == 6
    assert a is not cool["a"]


@pytest.mark.parametrize("name", ["skips it", "zeroes it"])
def test_an_overflow_that_only_the_last_gradient_has(name):
    """The loss is finite there, and the base hides what isn't."""
    base = {"skips it": optax.apply_if_finite(SGD, 9), "zeroes it": optax.zero_nans()}
    optimizer = lb.sam(base[name], rho=0.5)
    params = jnp.array(10.0)
    state = optimizer.init(params)
    step = jax.jit(lb.make_step(lambda p: jnp.exp(p.astype(jnp.float16)), optimizer))
    scale = DynamicScale(scale=2.0)  # exp(10) = 22 026, 2 exp(10.5) = 72 631
    *after, out = step(params, state, dynamic_scale=scale)
    chex.assert_trees_all_equal(after, [params, state])
    assert not out.finite
    assert out.dynamic_scale.scale == 1.0
    assert jnp.isfinite(out.loss)


# Changing the optimizer half way.


def test_phases_share_a_state_and_compile_once_each():
    """SGD, then SAM, then Lookbehind, with k from a schedule on the host."""
    params, batch = problem()
    phases = {
        "sgd": lb.lookbehind_sam(SGD, k=0),
        "sam": lb.sam(SGD),
        "lookbehind": lb.lookbehind_asam(SGD, k=3, alpha=lb.adaptive_alpha()),
    }
    steps = {
        name: jax.jit(lb.make_step(loss_fn, optimizer), donate_argnums=(0, 1))
        for name, optimizer in phases.items()
    }
    bare = {
        name: bare_step(optimizer, lambda p: loss_fn(p, *batch), with_grad_fn)
        for name, optimizer in phases.items()
    }
    expected = jax.tree.map(jnp.copy, params)
    there = phases["sgd"].init(expected)
    here = phases["lookbehind"].init(params)
    for name in ["sgd", "sgd", "sam", "sam", "sgd", "lookbehind", "lookbehind", "sam"]:
        params, here, _ = steps[name](params, here, *batch)
        expected, there = bare[name](expected, there)
        assert_close(params, expected)
    assert [step._cache_size() for step in steps.values()] == [1, 1, 1]
    assert here.count == 8


# Bad input.


def assert_refused(error, message, options=None, loss=loss_fn, optimizer=None, **given):
    """Raises the error, outside and inside jit, and leaves everything as it was."""
    options = options or {}
    optimizer = optimizer or lb.lookbehind_sam(SGD, k=3)
    params, batch = problem()
    batch = given.pop("batch", batch)
    state = optimizer.init(params)
    kept = jax.tree.map(jnp.copy, (params, state))
    for transform in (lambda f: f, jax.jit):
        with pytest.raises(error, match=message):
            transform(lb.make_step(loss, optimizer, **options))(
                params, state, *batch, **given
            )
    chex.assert_trees_all_equal((params, state), kept)


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda p, x, y: x[:, 0], r"float32\[24\]"),
        (lambda p, x, y: x[:1, 0], r"float32\[1\]"),
        (lambda p, x, y: jnp.complex64(1j), r"complex64\[\]"),
        (lambda p, x, y: jnp.int32(1), r"int32\[\]"),
        (lambda p, x, y: None, "None"),
        (lambda p, x, y: 1.0, "1.0 of type float"),
        (lambda p, x, y: (jnp.float32(1), x), r"tuple of .*pass has_aux=True"),
    ],
)
def test_a_loss_that_is_no_real_scalar(loss, got):
    assert_refused(
        TypeError, f"loss_fn must return a real scalar; got {got}", loss=loss
    )


@pytest.mark.parametrize(
    "returned", [jnp.float32(1), (jnp.float32(1),), [jnp.float32(1), None], None]
)
def test_has_aux_without_an_aux(returned):
    message = r"^with has_aux=True, loss_fn must return a pair \(loss, aux\); got "
    assert_refused(TypeError, message, {"has_aux": True}, lambda p, x, y: returned)


@pytest.mark.parametrize(
    "options",
    each(
        [{"micro_batches": 4}, {"m": 6, "axis_name": "g"}],
        [{"micro_batches": 4}],
    ),
)
@pytest.mark.parametrize(
    ("aux", "message"),
    [
        (
            lambda x: {"logits": x},
            r"the shape of aux\['logits'\], float32\[6, 5\], depends",
        ),
        (lambda x: {"correct": jnp.int32(1)}, r"aux\['correct'\] is int32\[\]"),
    ],
)
def test_an_aux_that_cannot_be_averaged(aux, message, options):
    optimizer = lb.sam(SGD, axis_name=options.get("axis_name"))
    loss = lambda p, x, y: (loss_fn(p, x, y), aux(x))
    options = {"has_aux": True, **options}
    assert_refused(TypeError, message, options, loss, optimizer)


@pytest.mark.parametrize(
    ("k", "wanted"),
    [
        (2, "k = 2 minibatches"),
        (4, "k = 4 minibatches"),
        (0, "one minibatch, since k = 0,"),
    ],
)
def test_a_batch_without_k_minibatches(k, wanted):
    _, (x, y) = problem()
    batch = x.reshape(3, 8, 5), y.reshape(3, 8, 2)
    assert_refused(
        ValueError,
        rf"^the batch must carry {wanted} on its leading axis; got 3\.",
        {"switch_minibatches": True},
        optimizer=lb.lookbehind_sam(SGD, k=k),
        batch=batch,
    )


@pytest.mark.parametrize("optimizer", [SGD, OPTIMIZERS["contrib.sam"][0]])
def test_minibatches_for_an_optimizer_that_does_not_switch(optimizer):
    _, (x, y) = problem()
    assert_refused(
        ValueError,
        "^switch_minibatches needs a sharpness-aware optimizer of this library",
        {"switch_minibatches": True},
        optimizer=optimizer,
        batch=(x[None], y[None]),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"micro_batches": 5},
            r"^micro_batches must divide .* micro_batches = 5 and 24",
        ),
        ({"m": 7, "axis_name": "g"}, r"^m must divide .* got m = 7 and 24 examples"),
        ({"m": 48, "axis_name": "g"}, r"^m must divide .* got m = 48 and 24 examples"),
        (
            {"m": 6, "axis_name": "g", "micro_batches": 4},
            r"^micro_batches must divide .* micro_batches = 4 and 6 examples",
        ),
    ],
)
def test_a_batch_that_does_not_divide(options, message):
    optimizer = lb.sam(SGD, axis_name=options.get("axis_name"))
    assert_refused(ValueError, message, options, optimizer=optimizer)


@pytest.mark.parametrize(
    "batch",
    [
        (jnp.ones((24, 5)), jnp.ones((12, 2))),
        (jnp.ones((24, 5)), jnp.float32(1.0)),
        (jnp.ones((24, 5)), 1.0),
        (jnp.ones((0, 5)), jnp.ones((0, 2))),
        (),
    ],
)
def test_a_batch_without_examples(batch):
    assert_refused(
        ValueError,
        "^the batch must consist of arrays with examples along the leading axis.*"
        "Pass by keyword",
        {"micro_batches": 4},
        batch=batch,
    )


def test_a_batch_with_minibatches_only():
    assert_refused(
        ValueError,
        "^the batch must consist of arrays with minibatches along the first axis",
        {"switch_minibatches": True},
        batch=(jnp.ones(3), jnp.ones(3)),
    )


def test_an_axis_that_is_not_there():
    assert_refused(
        ValueError,
        "^axis_name must name an axis of .*'group' isn't bound",
        {"axis_name": "group"},
        optimizer=lb.sam(SGD, axis_name="group"),
    )
    assert_refused(
        ValueError,
        "^axis_name must name an axis of .*'group' isn't bound",
        {"axis_name": "group"},
        optimizer=SGD,
    )
    params, batch = problem()
    optimizer = lb.sam(SGD, axis_name="group")
    grads = jax.grad(loss_fn)(params, *batch)
    with pytest.raises(ValueError, match=r"^axis_name must name an axis of"):
        optimizer.update(
            grads, optimizer.init(params), params, grad_fn=lambda p, i: grads
        )


@pytest.mark.parametrize("k", each([0, 2], [2]))
def test_axes_that_differ(k):
    for options, optimizer, names in [
        ({"m": 4, "axis_name": "g"}, lb.lookbehind_sam(SGD, k=k), "'g' .* None"),
        ({}, lb.lookbehind_sam(SGD, k=k, axis_name="g"), "None .* 'g'"),
    ]:
        message = f"^axis_name must be the same for the step and .* got {names}"
        assert_refused(ValueError, message, options, optimizer=optimizer)


@pytest.mark.parametrize("axis_name", [None, ("a", "b"), 1])
def test_m_without_a_name_for_its_axis(axis_name):
    with pytest.raises(ValueError, match=r"^m needs an axis_name, one name"):
        lb.make_step(loss_fn, SGD, m=4, axis_name=axis_name)


def test_m_with_the_name_of_an_axis_that_is_there():
    """The groups' axis would hide it, and its members would drift apart."""
    params, batch = problem()
    optimizer = lb.sam(SGD, axis_name="device")
    step = lb.make_step(loss_fn, optimizer, m=2, axis_name="device")
    state = optimizer.init(params)
    with pytest.raises(ValueError, match=r"^axis_name must be a new name where m"):
        jax.vmap(
            step,
            in_axes=(None, None, *(0 for _ in batch)),
            axis_name="device",
        )(params, state, *jax.tree.map(lambda x: x[None], batch))
    step(params, state, *batch)


def test_the_state_of_another_optimizer():
    params, batch = problem()
    step = lb.make_step(loss_fn, lb.sam(SGD))
    with pytest.raises(TypeError, match=r"^state must be a SharpnessAwareState"):
        step(params, SGD.init(params), *batch)
    with pytest.raises(ValueError, match=r"^state must come from an .* the same base"):
        step(params, lb.sam(optax.sgd(0.1)).init(params), *batch)


def test_swapped_arguments():
    params, batch = problem()
    step = lb.make_step(loss_fn, lb.sam(SGD))
    with pytest.raises(TypeError, match="must be integers or slices, not str"):
        step(lb.sam(SGD).init(params), params, *batch)


def test_fresh_keys_without_a_key():
    message = "^fresh_keys needs a PRNG key among the arguments"
    raw = jax.random.PRNGKey(0)
    assert_refused(ValueError, message, {"fresh_keys": True}, dropped, key=raw)
