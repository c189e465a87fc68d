"""m-SAM: ascent local to each member of an axis, descent along the mean over it."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library import reference
from tests.library.members import each
from tests.library.members import GROUPED
from tests.library.problems import Groups
from tests.library.problems import mesh_of
from tests.library.problems import regression_loss

AXIS = {"axis_name": "group"}


def update(optimizer, params, state, x, y, localize=lambda params: params):
    grad = jax.grad(regression_loss)
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
    local = lambda params: jax.lax.pcast(params, "group", to="varying")

    def one_group(params, state, x, y):
        return update(optimizer, params, state, x[0], y[0], local)

    return jax.shard_map(
        one_group,
        mesh=mesh_of(Groups.number, "group"),
        in_specs=(jax.P(), jax.P(), jax.P("group"), jax.P("group")),
        out_specs=jax.P(),
    )


@pytest.mark.parametrize("how", [vmapped, sharded], ids=["vmap", "shard_map"])
@pytest.mark.parametrize(
    "name", each(GROUPED, ["lookbehind_asam_adaptive", "friendly_sam"])
)
def test_groups_equal_a_loop_over_groups(name, how, x64):
    groups = Groups()
    optimizer = GROUPED[name].make(groups.base, groups.rho, groups.k, **AXIS)
    params, state = groups.params, optimizer.init(groups.params)
    step = jax.jit(how(optimizer))
    for expected in groups.trajectory(GROUPED[name]):
        norms = [reference.norm(grad(params)) for grad in groups.gradients()]
        params, state = step(params, state, *groups.split)
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
    groups = Groups()
    direction = optax.chain(shared, lb.sam_direction())
    optimizer = lb.sharpness_aware(
        groups.base, direction, lb.last_descent(), groups.rho, 2, **AXIS
    )
    step = jax.jit(vmapped(optimizer))
    _, state = step(groups.params, optimizer.init(groups.params), *groups.split)
    direction_state = state.direction_state.inner_states["perturbed"].inner_state
    assert (direction_state[0].ema["kernel"] != 0).all()


@pytest.mark.parametrize(
    "how", each([vmapped, sharded], [sharded]), ids=["vmap", "shard_map"]
)
def test_groups_share_a_random_direction(how, x64):
    """A control for m-SAM: all of them are perturbed alike, and keep one key."""
    key = jax.random.key(1)
    groups = Groups()
    params, rho = groups.params, groups.rho
    optimizer = lb.sharpness_aware(
        groups.base, lb.random_direction(key), lb.last_descent(), rho, **AXIS
    )
    step = jax.jit(how(optimizer))
    after, state = step(params, optimizer.init(params), *groups.split)
    _, now = jax.random.split(key)
    noise = optax.tree.random_like(now, params)
    moved = optax.tree.scale(rho / optax.tree.norm(noise), noise)
    at = optax.tree.add(params, moved)
    of_each = jax.jit(jax.vmap(jax.grad(regression_loss), (None, 0, 0)))
    grads = of_each(at, *groups.split)
    mean = jax.tree.map(lambda g: g.mean(0), grads)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.01 * p), params, mean)
    chex.assert_trees_all_close(after, expected, rtol=1e-10)
    assert (
        jax.random.key_data(state.direction_state.inner_states["perturbed"].inner_state)
        != jax.random.key_data(key)
    ).any()


def test_gradients_summed_already_are_refused(x64):
    """Inside `shard_map`, the gradient at unvarying parameters is summed by JAX."""
    groups = Groups()
    optimizer = lb.sam(groups.base, **AXIS)
    step = jax.shard_map(
        lambda params, state, x, y: update(optimizer, params, state, x[0], y[0]),
        mesh=mesh_of(groups.number, "group"),
        in_specs=(jax.P(), jax.P(), jax.P("group"), jax.P("group")),
        out_specs=jax.P(),
    )
    with pytest.raises(ValueError, match=r"grads must be local.*pcast"):
        jax.jit(step)(groups.params, optimizer.init(groups.params), *groups.split)
