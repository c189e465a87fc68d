"""Groups of m-SAM one after another, where convolutions would make grouped ones."""

import functools
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from lookbehind_optax import _groups
from tests.library.members import each
from tests.library.members import FEW
from tests.library.members import GROUPED
from tests.library.members import SGD
from tests.library.problems import ConvNet

EXAMPLES = 24


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.tanh(nn.Dense(8)(x.mean((1, 2)))))


def problem(model):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(EXAMPLES, 6, 6, 2)), jnp.float32)
    y = jnp.array(rng.integers(3, size=EXAMPLES))
    with jax.numpy_rank_promotion("allow"):
        params = model.init(jax.random.key(0), x)

    def loss(params, x, y):
        with jax.numpy_rank_promotion("allow"):
            logits = model.apply(params, x)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), {"logit": logits.mean(0)}

    return params, (x, y), loss


AXIS = {"axis_name": "group"}
MEMBERS = {
    name: functools.partial(GROUPED[name].make, SGD, 0.1, 2)
    for name in ("sam", "lookbehind_sam", "gsam")
}
MEMBERS["sgd"] = lambda **axis: SGD


def one_by_one(make, loss, params, batch, m):
    """The same step with groups over a vmap of the user's own, all side by side."""
    optimizer = make(**AXIS)
    step = lb.make_step(loss, optimizer, has_aux=True, **AXIS)
    split = [z.reshape(-1, m, *z.shape[1:]) for z in batch]
    mapped = jax.vmap(step, (None, None, 0, 0), out_axes=None, axis_name="group")
    return jax.jit(mapped)(params, optimizer.init(params), *split)


def in_groups(make, loss, params, batch, m, **options):
    optimizer = make(**AXIS)
    step = jax.jit(lb.make_step(loss, optimizer, has_aux=True, m=m, **AXIS, **options))
    return step, (params, optimizer.init(params), *batch)


@pytest.mark.parametrize(
    ("name", "m", "model"),
    # One after another with every member; with two, many groups and one group, and
    # those of a network without convolutions, which lie side by side anyway.
    each(
        [(name, 6, ConvNet()) for name in MEMBERS]
        + [(name, m, ConvNet()) for name in ("sam", "lookbehind_sam") for m in (1, 24)]
        + [(name, 6, Dense()) for name in ("sam", "lookbehind_sam")],
        quick=[],
        slow=[(name, 6, ConvNet()) for name in MEMBERS if name not in FEW]
        + [("sam", 1, ConvNet()), ("sam", 24, ConvNet()), ("sam", 6, Dense())],
    ),
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_one_after_another_is_side_by_side(name, m, model):
    params, batch, loss = problem(model)
    step, arguments = in_groups(MEMBERS[name], loss, params, batch, m)
    expected = one_by_one(MEMBERS[name], loss, params, batch, m)
    for x, y in zip(*map(jax.tree.leaves, (step(*arguments), expected)), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def grouped_convolutions(step, arguments, platform):
    """The numbers of groups of the program's convolutions, one for each of them."""
    if platform == "cpu":
        text = step.lower(*arguments).compile().as_text()
        found = re.findall(r" convolution\(.*", text)
        groups = [re.findall(r"(?:feature|batch)_group_count=(\d+)", c) for c in found]
        return [max(map(int, of), default=1) for of in groups]
    leaves, structure = jax.tree.flatten(arguments)

    def flat(leaves):
        return jax.tree.leaves(step(*jax.tree.unflatten(structure, leaves)))

    text = jax.export.export(jax.jit(flat), platforms=[platform])(leaves).mlir_module()
    found = re.findall(r"stablehlo\.convolution.*", text)
    groups = [re.findall(r"(?:feature|batch)_group_count = (\d+)", c) for c in found]
    return [max(map(int, of)) for of in groups]


@pytest.mark.parametrize("name", each(["sam", "lookbehind_sam"], ["sam"]))
def test_no_grouped_convolutions_on_cpus(name):
    """For 4 groups; those of a vmap of the user's own stay as they are."""
    params, batch, loss = problem(ConvNet())
    step, arguments = in_groups(MEMBERS[name], loss, params, batch, 6)
    counts = grouped_convolutions(step, arguments, "cpu")
    assert counts
    assert set(counts) == {1}
    for platform in ("cuda", "tpu"):
        assert 4 in grouped_convolutions(step, arguments, platform)


@pytest.mark.parametrize(
    ("groups", "alone"), each([(12, True), (24, False)], [(24, False)])
)
def test_many_groups_are_side_by_side(groups, alone):
    """The code of groups one after another grows with their number: to 16 of them."""
    assert 12 <= _groups._MOST < 24
    params, batch, loss = problem(ConvNet())
    step, arguments = in_groups(MEMBERS["sam"], loss, params, batch, EXAMPLES // groups)
    counts = grouped_convolutions(step, arguments, "cpu")
    assert (set(counts) == {1}) == alone
    assert (groups in counts) == (not alone)


@pytest.mark.thorough
def test_without_a_convolution_groups_are_side_by_side():
    """One matrix product for all groups, on CPUs as well."""

    def products(m):
        params, batch, loss = problem(Dense())
        step, arguments = in_groups(MEMBERS["sam"], loss, params, batch, m)
        leaves, structure = jax.tree.flatten(arguments)

        def flat(leaves):
            return jax.tree.leaves(step(*jax.tree.unflatten(structure, leaves)))

        exported = jax.export.export(jax.jit(flat), platforms=["cpu"])
        return exported(leaves).mlir_module().count("stablehlo.dot_general")

    assert products(2) == products(12) > 0


@pytest.mark.parametrize(
    "model", each([ConvNet(), Dense()], [ConvNet()]), ids=["conv", "dense"]
)
def test_a_loss_that_communicates(model):
    """BatchNorm over all groups, say: what its loss sums over the axis, it sums."""
    params, batch, plain = problem(model)

    def loss(params, x, y):
        value, aux = plain(params, x, y)
        share = jax.lax.psum(jnp.exp(-value), "group")
        center = jax.lax.pmean(x.mean(0), "group")
        return value * share, {**aux, "center": center, "share": share}

    step, arguments = in_groups(MEMBERS["lookbehind_sam"], loss, params, batch, 6)
    got = step(*arguments)
    expected = one_by_one(MEMBERS["lookbehind_sam"], loss, params, batch, 6)
    for x, y in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    parts = [plain(params, *(z[6 * j : 6 * j + 6] for z in batch))[0] for j in range(4)]
    share = np.sum(np.exp(-np.array(parts)))
    np.testing.assert_allclose(got[2].aux["share"], share, rtol=1e-5)
    np.testing.assert_allclose(got[2].aux["center"], batch[0].mean(0), atol=1e-6)


ALL_OF_IT = {"micro_batches": 2, "switch_minibatches": True, "fresh_keys": True}


@pytest.mark.parametrize(
    "options",
    each(
        [
            {"micro_batches": 3},
            {"switch_minibatches": True},
            {"fresh_keys": True},
            ALL_OF_IT,
        ],
        quick=[],
        slow=[{"switch_minibatches": True}, {"fresh_keys": True}],
    ),
    ids=["micro-batches", "switched", "fresh keys", "all of it"],
)
def test_options_beside_groups(options):
    """The same numbers from convolutions one after another and from products."""
    params, (x, y), _ = problem(ConvNet())
    kernel = params["params"]["Conv_0"]["kernel"]
    switch = options.get("switch_minibatches", False)
    if switch:
        x, y = (jnp.stack([z, z[::-1]]) for z in (x, y))

    def loss(convolve, kernel, x, y, key):
        scale = jax.random.uniform(key, (4,), minval=0.5)
        z = jnp.tanh(convolve(x, kernel)).mean((1, 2)) * scale[None]
        return jnp.mean((z[:, 0] - y.astype(jnp.float32)) ** 2)

    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def products(x, kernel):
        parts = [
            jnp.einsum(
                "nhwi,io->nhwo",
                x[:, i : i + 4, j : j + 4],
                kernel[i, j],
                precision="highest",
            )
            for i in range(3)
            for j in range(3)
        ]
        return sum(parts[1:], parts[0])

    optimizer = lb.lookbehind_sam(SGD, 0.1, 2, reuse_gradients=not switch, **AXIS)
    results = [
        jax.jit(
            lb.make_step(
                lambda p, x, y, *, key, c=convolve: loss(c, p, x, y, key),
                optimizer,
                m=12,
                **AXIS,
                **options,
            )
        )(kernel, optimizer.init(kernel), x, y, key=jax.random.key(2))
        for convolve in (convolution, products)
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("convolve", [True, False], ids=["conv", "dense"])
def test_flags_and_functions_by_keyword_in_groups(convolve):
    """They are no arrays, and stay what they are."""
    params, (x, _), _ = problem(ConvNet())
    kernel = params["params"]["Conv_0"]["kernel"]

    def loss(kernel, x, *, train, activation):
        assert train is True
        if not convolve:
            return jnp.mean(activation(jnp.einsum("nhwi,abio->no", x, kernel)))
        found = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.mean(activation(found))

    optimizer = lb.lookbehind_sam(SGD, 0.1, 2, **AXIS)
    step = lb.make_step(loss, optimizer, m=6, **AXIS)
    call = lambda p, s, x: step(p, s, x, train=True, activation=jnp.tanh)
    got = jax.jit(call)(kernel, optimizer.init(kernel), x)
    plain = lambda p, x: loss(p, x, train=True, activation=jnp.tanh)
    step = lb.make_step(plain, optimizer, m=6, **AXIS)
    expected = jax.jit(step)(kernel, optimizer.init(kernel), x)
    chex.assert_trees_all_equal(got, expected)


def test_statistics_in_groups(x64):
    """Integers of a model's state beside convolutions: from the first group."""
    params, batch, plain = problem(ConvNet())

    def loss(params, x, y):
        value, aux = plain(params, x, y)
        return value, {
            **aux,
            "state": lb.ModelState({"first": y[0], "mean": x.mean(0)}),
        }

    step, arguments = in_groups(MEMBERS["sgd"], loss, params, batch, 6)
    _, _, out = step(*arguments)
    state = out.aux["state"].value
    assert state["first"] == batch[1][0]
    np.testing.assert_allclose(state["mean"], batch[0].mean(0), atol=1e-6)


def test_a_loss_of_traced_constants():
    """A loss may close over what is traced around the step."""
    params, (x, y), plain = problem(ConvNet())

    def with_weight(weight, x):
        loss = lambda params, x: plain(params, x, y[:6])[0] * weight
        optimizer = MEMBERS["sam"](**AXIS)
        step = lb.make_step(loss, optimizer, m=6, **AXIS)
        return step(params, optimizer.init(params), x)[2].loss

    half, whole = (jax.jit(with_weight)(jnp.float32(w), x) for w in (0.5, 1.0))
    np.testing.assert_allclose(2 * half, whole, rtol=1e-6)
