"""m-SAM: ascent local to each member of an axis, descent along the mean over it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library import reference

GROUPS, GROUP, STEPS, RHO, K = 4, 3, 3, 0.2, 3
BASE = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))
ASAM = reference.asam(0.01)

# Each with the arguments of `reference.grouped` that mean the same.
MEMBERS = {
    "sam": (
        lb.sam(BASE, RHO, axis_name="group"),
        (reference.sam, 1, 1.0, reference.last),
    ),
    "asam": (lb.asam(BASE, RHO, axis_name="group"), (ASAM, 1, 1.0, reference.last)),
    "multistep_sam": (
        lb.multistep_sam(BASE, RHO, K, axis_name="group"),
        (reference.sam, K, 1.0, reference.last),
    ),
    "multistep_asam_average": (
        lb.multistep_asam(BASE, RHO, K, average=True, axis_name="group"),
        (ASAM, K, 1.0, reference.mean),
    ),
    "lookbehind_sam": (
        lb.lookbehind_sam(BASE, RHO, K, 0.4, axis_name="group"),
        (reference.sam, K, 0.4, "every"),
    ),
    "lookbehind_asam_adaptive": (
        lb.lookbehind_asam(BASE, RHO, K, lb.adaptive_alpha(), axis_name="group"),
        (ASAM, K, "global", "every"),
    ),
    "lookbehind_sam_2k": (
        lb.lookbehind_sam(BASE, RHO, K, 0.4, reuse_gradients=False, axis_name="group"),
        (reference.sam, K, 0.4, "every"),
    ),
    "gsam": (
        lb.gsam(BASE, RHO, 0.7, axis_name="group"),
        (reference.sam, 1, 1.0, reference.surrogate_gap(0.7)),
    ),
    "wsam": (
        lb.wsam(BASE, RHO, 0.8, axis_name="group"),
        (reference.sam, 1, 1.0, reference.weighted(0.8)),
    ),
    "friendly_sam": (
        lb.friendly_sam(BASE, RHO, 0.9, 0.6, axis_name="group"),
        (functools.partial(reference.Friendly, 0.9, 0.6), 1, 1.0, reference.last),
    ),
    "lookbehind_friendly_sam": (
        lb.sharpness_aware(
            BASE,
            lb.friendly_direction(0.9, 0.6),
            lb.every_descent(0.4),
            RHO,
            K,
            axis_name="group",
        ),
        (functools.partial(reference.Friendly, 0.9, 0.6), K, 0.4, "every"),
    ),
}


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["kernel"] + params["bias"][None])
    return jnp.mean((hidden - y) ** 2)


def data():
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(GROUPS, GROUP, 5)))
    y = jnp.array(rng.normal(size=(GROUPS, GROUP, 2)))
    params = {"kernel": rng.normal(size=(5, 2)), "bias": rng.normal(size=2)}
    return params, x, y


def expected_trajectory(arguments, params, x, y):
    direction, k, alpha, uses = arguments
    # Friendly-SAM's m is one for all groups.
    friendly = direction() if isinstance(direction, functools.partial) else None
    direction = direction if friendly is None else friendly
    base = reference.SGD(0.1, 0.9, 0.01)
    a = base.init(params)
    grad = jax.jit(jax.grad(loss))
    grads = [
        lambda p, n=n: jax.tree.map(np.asarray, grad(p, x[n], y[n]))
        for n in range(GROUPS)
    ]
    for _ in range(STEPS):
        clean = [grad(params) for grad in grads]
        params, a = reference.grouped(
            params, a, grads, base, direction, RHO, k, alpha, uses
        )
        if friendly is not None:
            friendly.follow(jax.tree.map(lambda *g: sum(g) / GROUPS, *clean))
        yield params


def update(optimizer, params, state, x, y, localize=lambda params: params):
    grad = jax.grad(loss)
    updates, state = optimizer.update(
        grad(localize(params), x, y),
        state,
        params,
        grad_fn=lambda p, i: grad(p, x, y),
    )
    return optax.apply_updates(params, updates), state


def vmapped(optimizer):
    """On one device: groups are a batch axis, and nothing that comes out has it."""
    return jax.vmap(
        functools.partial(update, optimizer),
        in_axes=(None, None, 0, 0),
        out_axes=None,
        axis_name="group",
    )


def sharded(optimizer):
    """Over four devices, one group each."""
    mesh = jax.make_mesh(
        (GROUPS,),
        ("group",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:GROUPS],
    )
    local = lambda params: jax.lax.pcast(params, "group", to="varying")

    def one_group(params, state, x, y):
        return update(optimizer, params, state, x[0], y[0], local)

    return jax.shard_map(
        one_group,
        mesh=mesh,
        in_specs=(jax.P(), jax.P(), jax.P("group"), jax.P("group")),
        out_specs=jax.P(),
    )


@pytest.mark.parametrize("how", [vmapped, sharded], ids=["vmap", "shard_map"])
@pytest.mark.parametrize("name", MEMBERS)
def test_groups_equal_a_loop_over_groups(name, how, x64):
    optimizer, arguments = MEMBERS[name]
    params, x, y = data()
    trajectory = expected_trajectory(arguments, params, x, y)
    params = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(params)
    step = jax.jit(how(optimizer))
    for expected in trajectory:
        norms = [
            optax.tree.norm(jax.grad(loss)(params, *xy))
            for xy in zip(x, y, strict=True)
        ]
        params, state = step(params, state, x, y)
        chex.assert_trees_all_close(params, expected, rtol=1e-10)
        np.testing.assert_allclose(state.grad_norm, np.mean(norms), rtol=1e-6)


def test_a_stateful_direction_under_vmap(x64):
    """A direction that averages its gradient over the axis has one state for all."""
    shared = optax.GradientTransformation(
        optax.ema(0.5, debias=False).init,
        lambda g, s, p=None: optax.ema(0.5, debias=False).update(
            jax.lax.pmean(g, "group"), s
        ),
    )
    optimizer = lb.sharpness_aware(
        BASE,
        optax.chain(shared, lb.sam_direction()),
        lb.last_descent(),
        RHO,
        2,
        axis_name="group",
    )
    params, x, y = data()
    params = jax.tree.map(jnp.asarray, params)
    _, state = jax.jit(vmapped(optimizer))(params, optimizer.init(params), x, y)
    direction_state = state.direction_state.inner_states["perturbed"].inner_state
    assert (direction_state[0].ema["kernel"] != 0).all()


@pytest.mark.parametrize("how", [vmapped, sharded], ids=["vmap", "shard_map"])
def test_groups_share_a_random_direction(how, x64):
    """A control for m-SAM: all of them are perturbed alike, and keep one key."""
    key = jax.random.key(1)
    optimizer = lb.sharpness_aware(
        BASE, lb.random_direction(key), lb.last_descent(), RHO, axis_name="group"
    )
    params, x, y = data()
    params = jax.tree.map(jnp.asarray, params)
    after, state = jax.jit(how(optimizer))(params, optimizer.init(params), x, y)
    _, now = jax.random.split(key)
    noise = optax.tree.random_like(now, params)
    moved = optax.tree.scale(RHO / optax.tree.norm(noise), noise)
    at = optax.tree.add(params, moved)
    grads = [jax.grad(loss)(at, *xy) for xy in zip(x, y, strict=True)]
    mean = jax.tree.map(lambda *g: sum(g) / GROUPS, *grads)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.01 * p), params, mean)
    chex.assert_trees_all_close(after, expected, rtol=1e-10)
    assert (
        jax.random.key_data(state.direction_state.inner_states["perturbed"].inner_state)
        != jax.random.key_data(key)
    ).any()


def test_gradients_summed_already_are_refused(x64):
    """Inside `shard_map`, the gradient at unvarying parameters is summed by JAX."""
    optimizer, _ = MEMBERS["sam"]
    params, x, y = data()
    params = jax.tree.map(jnp.asarray, params)
    mesh = jax.make_mesh((8,), ("group",), axis_types=(jax.sharding.AxisType.Auto,))
    x, y = (jnp.concatenate([z, z]) for z in (x, y))
    step = jax.shard_map(
        lambda params, state, x, y: update(optimizer, params, state, x[0], y[0]),
        mesh=mesh,
        in_specs=(jax.P(), jax.P(), jax.P("group"), jax.P("group")),
        out_specs=jax.P(),
    )
    with pytest.raises(ValueError, match=r"grads must be local.*pcast"):
        step(params, optimizer.init(params), x, y)
