"""What a loss returns beside the loss, where the batch is split."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.members import each
from tests.library.problems import mesh_of

SGD = optax.sgd(0.1)
X = jnp.arange(24.0).reshape(12, 2) / 10
PARAMS = jnp.array([0.5, -1.0])


def with_aux(aux):
    def loss(params, x, *args, **kwargs):
        return jnp.mean((x - params[None]) ** 2), aux(x, *args, **kwargs)

    return loss


def on_two_devices(step, *args):
    """Half the examples on each; further arguments are the same for both."""
    specs = (jax.P(), jax.P(), jax.P("data"), *(jax.P() for _ in args))
    return jax.shard_map(step, mesh=mesh_of(2), in_specs=specs, out_specs=jax.P())


def take_step(how, loss, optimizer=None, *args):
    """What a step's `out` is where the batch comes in two parts, by `how`."""
    options = {
        "m": {"m": 6, "axis_name": "data"},
        "micro_batches": {"micro_batches": 2},
        "devices": {"axis_name": "data"},
        "vmap": {"axis_name": "data"},
    }[how]
    member = "data" if how == "m" else None
    optimizer = optimizer or lb.sam(SGD, axis_name=member)
    step = lb.make_step(loss, optimizer, has_aux=True, **options)
    x = X
    if how == "devices":
        step = on_two_devices(step, *args)
    elif how == "vmap":
        x = X.reshape(2, 6, 2)
        in_axes = (None, None, 0, *(None for _ in args))
        step = jax.vmap(step, in_axes, out_axes=None, axis_name="data")
    return jax.jit(step)(PARAMS, optimizer.init(PARAMS), x, *args)[2]


def part(how, j):
    """The examples of part j."""
    return X[j::2] if how == "micro_batches" else X[6 * j : 6 * j + 6]


HOW = ["m", "micro_batches", "devices", "vmap"]
each_way = pytest.mark.parametrize("how", HOW)

MEANS = {
    "a scalar": lambda x: x.mean(),
    "of each feature": lambda x: {"mean": x.mean(0)},
    "in bfloat16": lambda x: jnp.bfloat16(0.5),
    "complex": lambda x: jax.lax.complex(x.mean(0), x.mean(0)),
    "nothing": lambda x: None,
    "a tuple": lambda x: (x.mean(), {"max": x.max(0)}),
}


@each_way
@pytest.mark.parametrize("name", each(MEANS, ["a tuple"]))
def test_means_are_averaged(name, how):
    out = take_step(how, with_aux(MEANS[name]))
    expected = jax.tree.map(
        lambda a, b: (a + b) / 2, *(MEANS[name](part(how, j)) for j in range(2))
    )
    assert jax.tree.structure(out.aux) == jax.tree.structure(expected)
    for got, wanted in zip(*map(jax.tree.leaves, (out.aux, expected)), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


REFUSED = {
    "a count": (
        lambda x: {"correct": jnp.sum(x > 1)},
        r"hold floating-point means .*; aux\['correct'\] is int32\[\]",
    ),
    "a flag": (
        lambda x: jnp.any(x > 1),
        r"hold floating-point means .*; aux is bool\[\]",
    ),
    "a Python number": (
        lambda x: {"n": len(x)},
        r"hold floating-point means .*; aux\['n'\] is (6 of type int|int32\[\])",
    ),
    "an entry for each example": (
        lambda x: {"logits": x},
        r"hold means over examples .*aux\['logits'\], float32\[6, 2\], depends",
    ),
    "a loss for each example": (
        lambda x: x.mean(1),
        r"hold means over examples .*aux, float32\[6\], depends",
    ),
    "an integer for each example": (
        lambda x: (x > 1).astype(jnp.int32),
        r"hold floating-point means .*; aux is int32\[6, 2\]",
    ),
    "states for each example": (
        lambda x: lb.ModelState(x),
        r"hold means over examples .*float32\[6, 2\], depends",
    ),
}


@each_way
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("member", each([True, False], [True]), ids=["sam", "sgd"])
def test_what_cannot_be_averaged_is_refused(name, how, member):
    """Also where an axis is there already and its members aren't SAM's groups."""
    aux, message = REFUSED[name]
    with pytest.raises(TypeError, match=f"^aux must {message}"):
        take_step(how, with_aux(aux), None if member else SGD)


@each_way
def test_what_is_no_example_beside_the_batch(how):
    """An axis alone splits nothing: a scalar and a key may be positional."""
    if how in ("m", "micro_batches"):
        pytest.skip("they split every positional argument")

    def aux(x, scale, key):
        return {"mean": scale * x.mean(0), "noise": jax.random.normal(key, (3,))}

    key = jax.random.key(0)
    out = take_step(how, with_aux(aux), None, jnp.float32(2.0), key)
    each = [
        aux(part(how, j), jnp.float32(2.0), jax.random.fold_in(key, j))
        for j in range(2)
    ]
    for name in ("mean", "noise"):
        expected = (each[0][name] + each[1][name]) / 2
        np.testing.assert_allclose(out.aux[name], expected, rtol=1e-6)


# What a model keeps.


STATES = {
    "a counter": lambda x: jnp.int32(3) + jnp.sum(x > 1, dtype=jnp.int32),
    "a flag": lambda x: x[0, 0] < 0.05,
    "a byte": lambda x: (100 * x[0]).astype(jnp.uint8),
    "a key as in jax.random.PRNGKey": lambda x: jax.random.PRNGKey(
        jnp.sum(x > 1, dtype=jnp.int32)
    ),
    "a negative number": lambda x: -jnp.sum(x > 1, dtype=jnp.int16),
    "a small float": lambda x: x.mean(0),
    "nothing": lambda x: (),
}


@each_way
def test_states_come_from_the_first_part(how):
    """But floating-point numbers, which are averaged; outside, means are."""

    def aux(x):
        states = {name: state(x) for name, state in STATES.items()}
        return {"mean": x.mean(), "state": [lb.ModelState(states)]}

    out = take_step(how, with_aux(aux))
    first, second = (aux(part(how, j)) for j in range(2))
    np.testing.assert_allclose(
        out.aux["mean"], (first["mean"] + second["mean"]) / 2, rtol=1e-6
    )
    (state,) = out.aux["state"]
    assert isinstance(state, lb.ModelState)
    found, expected = state.value, dict(first["state"][0].value)
    other = second["state"][0].value["a small float"]
    expected["a small float"] = (expected["a small float"] + other) / 2
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for name in STATES:
        for got, wanted in zip(
            *map(jax.tree.leaves, (found[name], expected[name])), strict=True
        ):
            assert got.dtype == wanted.dtype
            np.testing.assert_allclose(got, wanted, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("how", each(HOW, ["devices"]))
def test_states_of_64_bits(how, x64):
    """Counters that are longer than an int32."""
    many = 2**40 + 7
    aux = lambda x: lb.ModelState(jnp.int64(many) + jnp.sum(x > 100))
    assert take_step(how, with_aux(aux)).aux.value == many


@pytest.mark.parametrize("how", each(HOW, ["devices"]))
def test_states_that_are_keys(how):
    """The key of a random stream, as in a state of Flax or Equinox."""
    key = jax.random.key(3)
    aux = lambda x: lb.ModelState({"key": key, "count": jnp.int32(4)})
    state = take_step(how, with_aux(aux)).aux.value
    assert state["count"] == 4
    np.testing.assert_array_equal(
        jax.random.key_data(state["key"]), jax.random.key_data(key)
    )


def test_an_aux_of_a_whole_batch_may_be_anything():
    aux = lambda x: {"logits": x, "count": jnp.sum(x > 1), "n": len(x), "f": None}
    step = lb.make_step(with_aux(aux), lb.sam(SGD), has_aux=True)
    _, _, out = step(PARAMS, lb.sam(SGD).init(PARAMS), X)
    assert out.aux["count"] == 13
    assert out.aux["n"] == 12
    np.testing.assert_array_equal(out.aux["logits"], X)


def test_a_state_is_a_tree():
    """So that it may pass through jit, scan and the rest."""
    state = lb.ModelState({"a": jnp.int32(1)})
    doubled = jax.jit(functools.partial(jax.tree.map, lambda x: 2 * x))(state)
    assert doubled.value == {"a": 2}
