"""Many devices: the same numbers, shards that stay shards, and what crosses.

Everything is asked of the compiled program: what it does to shardings, which arrays it
makes on a device, how much memory it takes there, and what it sends.
"""

from collections import Counter
import functools
from typing import NamedTuple

from flax.training.dynamic_scale import DynamicScale
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.speed.programs import instructions
from benchmarks.speed.programs import traffic
import lookbehind_optax as lb
from tests.library import reference
from tests.library.lenient import lenient
from tests.library.members import ADAPTIVE
from tests.library.members import each
from tests.library.members import GROUPED
from tests.library.members import SGD
from tests.library.problems import mesh_of

RHO, K, STEPS = 0.1, 2, 4
EXAMPLES = 64  # 8 on each device
# No two parameters have the same number of elements, nor has any activation as many
# as a parameter or a part of it. All divide by 8.
SIZES = (24, 88, 40)


def initial_params(sizes=SIZES, dtype=None):
    rng = np.random.default_rng(0)
    inputs, hidden, outputs = sizes
    shapes = {
        "hidden_kernel": (inputs, hidden),
        "hidden_bias": (hidden,),
        "out_kernel": (hidden, outputs),
        "out_bias": (outputs,),
    }
    return {
        name: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), dtype)
        for name, shape in shapes.items()
    }


def batch_of(examples, sizes=SIZES, dtype=None):
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=(examples, n)) for n in (sizes[0], sizes[-1]))
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def loss_fn(params, x, y, *, hidden=lambda h: h, out=lambda z: z):
    """`hidden` and `out` may constrain the shardings of activations."""
    h = hidden(jnp.tanh(x @ params["hidden_kernel"] + params["hidden_bias"][None]))
    z = out(h @ params["out_kernel"] + params["out_bias"][None])
    return jnp.mean((z - y) ** 2)


class Layout(NamedTuple):
    """How parameters and activations lie on a mesh; the batch is split along "data"."""

    shape: tuple[int, ...]
    hidden_kernel: jax.P
    hidden_bias: jax.P
    out_kernel: jax.P
    out_bias: jax.P
    hidden: jax.P

    def mesh(self, kind=jax.sharding.AxisType.Auto):
        names = ("data", "model")[: len(self.shape)]
        devices = jax.devices()[: np.prod(self.shape)]
        return jax.make_mesh(
            self.shape, names, axis_types=(kind,) * len(names), devices=devices
        )

    def sharding(self, name):
        return jax.NamedSharding(self.mesh(), getattr(self, name))

    def batch_sharding(self):
        return jax.NamedSharding(self.mesh(), jax.P("data"))

    def loss_fn(self, params, x, y):
        constrain = jax.lax.with_sharding_constraint
        return loss_fn(
            params,
            x,
            y,
            hidden=lambda h: constrain(h, self.sharding("hidden")),
            out=lambda z: constrain(z, self.batch_sharding()),
        )

    def place(self, optimizer, params):
        """Parameters and state, of which only the scalars need to be placed by hand."""
        params = {n: jax.device_put(x, self.sharding(n)) for n, x in params.items()}
        whole = jax.NamedSharding(self.mesh(), jax.P())
        state = jax.tree.map(
            lambda x: x if x.ndim else jax.device_put(x, whole), optimizer.init(params)
        )
        return params, state

    def place_batch(self, batch):
        return jax.device_put(batch, self.batch_sharding())

    def assert_kept(self, tree, params):
        """Whatever has the shape of a parameter has its sharding, too."""
        specs = {x.shape: getattr(self, name) for name, x in params.items()}
        for x in jax.tree.leaves(tree):
            spec = specs.get(x.shape, jax.P())
            expected = jax.NamedSharding(self.mesh(), spec)
            assert x.sharding.is_equivalent_to(expected, x.ndim), x.sharding


whole, by_data, by_model = jax.P(), jax.P("data"), jax.P("model")


def fsdp(devices):
    columns = jax.P(None, "data")
    return Layout((devices,), columns, by_data, by_data, by_data, by_data)


def two_dimensional(data, model):
    columns, both = jax.P(None, "model"), jax.P("data", "model")
    return Layout((data, model), columns, by_model, by_model, whole, both)


DATA_PARALLEL = Layout((8,), whole, whole, whole, whole, by_data)
LAYOUTS = {
    "data_parallel": DATA_PARALLEL,
    "fsdp": fsdp(8),
    "two_dimensional": two_dimensional(4, 2),
    "two_dimensional_fsdp": Layout(
        (4, 2),
        jax.P("data", "model"),
        by_model,
        jax.P("model", "data"),
        by_data,
        jax.P("data", "model"),
    ),
}

BASES = {"sgd": SGD, "adam": lenient(optax.adam(0.01))}


class Member(NamedTuple):
    """A member, how high it climbs, and how many gradients it descends along."""

    make: functools.partial
    k: int
    descents: int


MEMBERS = {
    "sam": Member(functools.partial(lb.sam, rho=RHO), 1, 1),
    "asam": Member(functools.partial(lb.asam, rho=RHO), 1, 1),
    "multistep_sam": Member(functools.partial(lb.multistep_sam, rho=RHO, k=K), K, 1),
    "multistep_asam_average": Member(
        functools.partial(lb.multistep_asam, rho=RHO, k=K, average=True), K, 1
    ),
    "lookbehind_sam": Member(
        functools.partial(lb.lookbehind_sam, rho=RHO, k=K, alpha=0.4), K, K
    ),
    "lookbehind_asam_per_tensor": Member(
        functools.partial(
            lb.lookbehind_asam, rho=RHO, k=K, alpha=lb.adaptive_alpha(per_tensor=True)
        ),
        K,
        K,
    ),
} | {
    f"adaptive_k{k}": Member(
        functools.partial(lb.lookbehind_sam, rho=RHO, k=k, alpha=ADAPTIVE), k, max(k, 1)
    )
    for k in (0, 1, 2, 5)
}
TRAJECTORIES = [
    ("sam", "sgd"),
    ("asam", "adam"),
    ("multistep_asam_average", "sgd"),
    ("adaptive_k2", "sgd"),
    ("adaptive_k2", "adam"),
]
CROSSING = each(MEMBERS, ["adaptive_k5"])


# What a compiled program holds, and what crosses.


def times(n, params, sharding=lambda name: None):
    """The parameters n times over, or those shards of them that a device has."""
    counter = Counter()
    for name, x in params.items():
        placed = sharding(name)
        shape = x.shape if placed is None else placed.shard_shape(x.shape)
        counter[int(np.prod(shape))] += n
    return counter


def bytes_of(params):
    return sum(x.nbytes for x in jax.tree.leaves(params))


# What moves an array, multiplies matrices, or sums over devices. Fusions and calls
# are looked into.
COMPUTE = {"all-gather", "all-reduce", "reduce-scatter", "dot"}
COMPUTE |= {"parameter", "tuple", "get-tuple-element", "call", "fusion"}
COMPUTE |= {"bitcast", "copy", "reshape", "transpose"}


def replicated(compiled, layout, params):
    """Arithmetic on more of a kernel than a device's shard of it."""
    forbidden = set()
    for name in ("hidden_kernel", "out_kernel"):
        shard = np.prod(layout.sharding(name).shard_shape(params[name].shape))
        size = params[name].size
        while size > shard:
            forbidden.add(size)
            size //= 2
    return [
        instruction.line
        for instruction in instructions(compiled)
        if instruction.kind not in COMPUTE
        and forbidden & {elements for elements, _ in instruction.arrays}
    ]


def compiled_step(layout, optimizer, params, batch, loss_fn=None, **options):
    """A step compiled for the layout, that leaves the layout of its results to XLA."""
    step = lb.make_step(loss_fn or layout.loss_fn, optimizer, **options)
    arguments = *layout.place(optimizer, params), *layout.place_batch(batch)
    return jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()


def compiled_groups(optimizer, params, batch, **options):
    """m-SAM with one group on each device."""
    step = jax.shard_map(
        lb.make_step(loss_fn, optimizer, axis_name="data", **options),
        mesh=DATA_PARALLEL.mesh(),
        in_specs=(whole, whole, by_data, by_data),
        out_specs=whole,
    )
    arguments = *DATA_PARALLEL.place(optimizer, params), *batch
    return jax.jit(step).lower(*arguments).compile()


# The same numbers, and shards that stay shards.


def assert_close(actual, expected):
    for x, y in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        assert x.dtype == y.dtype
        x, y = np.asarray(x), np.asarray(y)
        rounding = 1e-12 if x.dtype == np.float64 else 1e-6
        size = np.max(np.abs(y), initial=0)
        np.testing.assert_allclose(x, y, rtol=0, atol=rounding * size)


@functools.cache
def on_one_device(name, base):
    optimizer = MEMBERS[name].make(BASES[base])
    params, batch = initial_params(), batch_of(EXAMPLES)
    state = optimizer.init(params)
    step = jax.jit(lb.make_step(loss_fn, optimizer))
    trajectory = []
    for _ in range(STEPS):
        params, state, out = step(params, state, *batch)
        trajectory.append((params, state, out))
    return trajectory


@pytest.mark.parametrize(("name", "base"), each(TRAJECTORIES, TRAJECTORIES[-1:]))
@pytest.mark.parametrize("layout", each(LAYOUTS, ["two_dimensional_fsdp"]))
def test_the_trajectory_of_one_device(layout, name, base, x64):
    """To rounding, with everything staying where it was put, on the climb as well."""
    layout = LAYOUTS[layout]
    optimizer = MEMBERS[name].make(BASES[base])
    params, batch = initial_params(), batch_of(EXAMPLES)
    step = compiled_step(layout, optimizer, params, batch)
    assert replicated(step, layout, params) == []
    placed, state = layout.place(optimizer, params)
    batch = layout.place_batch(batch)
    for expected in on_one_device(name, base):
        layout.assert_kept((placed, state), params)
        placed, state, out = step(placed, state, *batch)
        assert_close((placed, state, out), expected)
    layout.assert_kept((placed, state), params)


@pytest.mark.thorough
def test_one_compilation(x64):
    layout, optimizer = fsdp(8), MEMBERS["adaptive_k2"].make(BASES["adam"])
    step = jax.jit(lb.make_step(layout.loss_fn, optimizer), donate_argnums=(0, 1))
    params, state = layout.place(optimizer, initial_params())
    batch = layout.place_batch(batch_of(EXAMPLES))
    for _ in range(3):
        params, state, _ = step(params, state, *batch)
    assert step._cache_size() == 1


@pytest.mark.thorough
def test_constrained_parameters_would_replicate_the_climb():
    """As docs/devices.md warns; and `replicated` sees it."""
    layout, params = fsdp(8), initial_params()

    def gathering(params, x, y):
        gathered = jax.lax.with_sharding_constraint(
            params, jax.NamedSharding(layout.mesh(), whole)
        )
        return loss_fn(gathered, x, y)

    optimizer = MEMBERS["adaptive_k2"].make(SGD)
    step = compiled_step(layout, optimizer, params, batch_of(EXAMPLES), gathering)
    assert replicated(step, layout, params)


def test_explicit_axes_gather_where_asked(x64):
    """With shardings in types, the loss gathers, and the climb can't but be sharded."""
    layout, params, batch = fsdp(8), initial_params(), batch_of(EXAMPLES)
    optimizer = MEMBERS["adaptive_k2"].make(SGD)

    def gathering(params, x, y):
        return loss_fn({n: jax.reshard(w, whole) for n, w in params.items()}, x, y)

    mesh = layout.mesh(jax.sharding.AxisType.Explicit)
    with jax.set_mesh(mesh):
        placed = {n: jax.device_put(x, getattr(layout, n)) for n, x in params.items()}
        batch = jax.device_put(batch, by_data)
        step = jax.jit(lb.make_step(gathering, optimizer))
        arguments = placed, optimizer.init(placed), *batch
        assert replicated(step.lower(*arguments).compile(), layout, params) == []
        result = step(*arguments)
        types = jax.tree.map(jax.typeof, arguments[:2])
        assert jax.tree.map(jax.typeof, result[:2]) == types
    assert_close(result, on_one_device("adaptive_k2", "sgd")[0])


# Memory.

LARGE = (64, 1024, 64)


def memory(layout, optimizer):
    """Bytes on one device: of what goes in, and of all there is during a step."""
    params, batch = initial_params(LARGE), batch_of(8, LARGE)
    stats = compiled_step(layout, optimizer, params, batch).memory_analysis()
    assert stats is not None
    held = stats.argument_size_in_bytes
    made = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return held, held + made + stats.temp_size_in_bytes


@pytest.mark.thorough
def test_memory_falls_with_the_number_of_devices():
    """FSDP: all is shared but the weights gathered for a pass, and their gradient."""
    optimizer = MEMBERS["adaptive_k2"].make(SGD)
    size = bytes_of(initial_params(LARGE))
    for devices in (1, 2, 4, 8):
        held, peak = memory(fsdp(devices), optimizer)
        # Parameters and momentum; the batch and a few scalars are small.
        assert held == pytest.approx(2 * size / devices, rel=0.05)
        # With the perturbed weights, the fast weights and their first update.
        shared = peak - 2 * size
        assert shared < 4.1 * size / devices


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [
        (lb.sam(SGD), 3.5),
        (lb.lookbehind_sam(SGD, k=2), 5),
        (lb.lookbehind_sam(SGD, k=2, alpha=lb.adaptive_alpha()), 5),
        (lb.lookbehind_sam(SGD, k=5), 5.5),
        (lb.lookbehind_sam(SGD, k=5, alpha=lb.adaptive_alpha()), 6.5),
    ],
    ids=["sam", "k=2", "adaptive, k=2", "k=5", "adaptive, k=5"],
)
def test_memory_on_one_device(optimizer, copies):
    """As docs/devices.md says, of parameters."""
    _, peak = memory(fsdp(1), optimizer)
    assert peak == pytest.approx(copies * bytes_of(initial_params(LARGE)), rel=0.02)


@pytest.mark.thorough
def test_memory_falls_with_the_axis_along_which_weights_are_split():
    """On a 2-D mesh no weights are gathered: everything is shared."""
    optimizer = MEMBERS["adaptive_k2"].make(SGD)
    _, peak = memory(two_dimensional(2, 1), optimizer)
    for model in (2, 4):
        assert memory(two_dimensional(2, model), optimizer)[1] < 1.02 * peak / model


# What crosses.


def losses(k):
    """How many losses cross: the clean one and the last, or, from a loop, each.

    Three ascents or more are a scan, which reduces every loss as it comes, though
    nobody asks for those on the way.
    """
    return k + 1 if k > 2 else min(k + 1, 2)


@pytest.mark.parametrize("name", CROSSING)
def test_data_parallel_reduces_k_plus_1_gradients(name):
    """And losses; nothing else."""
    params = initial_params(dtype=jnp.float32)
    member = MEMBERS[name]
    step = compiled_step(
        DATA_PARALLEL, member.make(SGD), params, batch_of(EXAMPLES, dtype=jnp.float32)
    )
    crossing = traffic(step)
    assert crossing.arrays == {"all-reduce": times(member.k + 1, params)}
    assert crossing.bytes == {"all-reduce": (member.k + 1) * bytes_of(params)}
    assert crossing.scalars == losses(member.k)


@pytest.mark.parametrize("name", CROSSING)
def test_groups_on_devices_reduce_what_is_descended_along(name):
    """m-SAM: k gradients for Lookbehind, one where the base moves once."""
    params = initial_params(dtype=jnp.float32)
    batch = batch_of(EXAMPLES, dtype=jnp.float32)
    member = MEMBERS[name]
    step = compiled_groups(member.make(SGD, axis_name="data"), params, batch)
    crossing = traffic(step)
    assert crossing.arrays == {"all-reduce": times(member.descents, params)}
    assert crossing.bytes == {"all-reduce": member.descents * bytes_of(params)}
    # Two losses, of which the base alone has one, and the norm of the gradient.
    assert crossing.scalars == (3 if member.k else 2)


@pytest.mark.thorough
def test_micro_batches_of_groups_on_devices_cost_nothing(x64):
    """A group's gradients are its own affair, however it comes by them."""
    params, batch = initial_params(), batch_of(EXAMPLES)
    optimizer = MEMBERS["adaptive_k2"].make(SGD, axis_name="data")
    step = compiled_groups(optimizer, params, batch, micro_batches=4)
    assert traffic(step).arrays == {"all-reduce": times(K, params)}
    placed = DATA_PARALLEL.place(optimizer, params)
    at_once = compiled_groups(optimizer, params, batch)(*placed, *batch)
    assert_close(step(*placed, *batch), at_once)


# Two losses and the norm of the gradient. Where a group lies on two devices, its own
# losses are to be reduced first.
@pytest.mark.parametrize(
    ("m", "gradients", "scalars"),
    each([(4, K, 3), (8, K, 3), (16, K + (K + 1), 3 + 2)], [(8, K, 3)]),
)
def test_groups_in_a_sharded_batch(m, gradients, scalars):
    """As on devices if each lies on one; else they have their gradients to reduce."""
    params = initial_params()
    optimizer = MEMBERS["adaptive_k2"].make(SGD, axis_name="group")
    options = {"m": m, "axis_name": "group"}
    step = compiled_step(
        DATA_PARALLEL, optimizer, params, batch_of(EXAMPLES), loss_fn, **options
    )
    crossing = traffic(step)
    assert crossing.arrays == {"all-reduce": times(gradients, params)}
    assert crossing.scalars == scalars


@pytest.mark.parametrize("axis_name", each([None, "data"], ["data"]))
def test_own_gradients_on_switched_minibatches(axis_name):
    """With `reuse_gradients=False`: 2k reductions in step with each other, or k."""
    params, k = initial_params(), 3
    batch = batch_of(k * EXAMPLES)
    minibatches = jax.tree.map(lambda x: x.reshape(k, EXAMPLES, -1), batch)
    optimizer = lb.lookbehind_sam(
        SGD, RHO, k, 0.4, reuse_gradients=False, axis_name=axis_name
    )
    step = lb.make_step(
        loss_fn, optimizer, switch_minibatches=True, axis_name=axis_name
    )
    mesh = DATA_PARALLEL.mesh()
    columns = jax.P(None, "data")
    if axis_name is not None:
        specs = whole, whole, columns, columns
        step = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=whole)
    placed = DATA_PARALLEL.place(optimizer, params)
    minibatches = jax.device_put(minibatches, jax.NamedSharding(mesh, columns))
    crossing = traffic(jax.jit(step).lower(*placed, *minibatches).compile())
    reductions = 2 * k if axis_name is None else k
    assert crossing.arrays == {"all-reduce": times(reductions, params)}


IN_PARTS = each(
    ["adaptive_k0", "adaptive_k1", "adaptive_k2", "multistep_asam_average"],
    ["adaptive_k2"],
)


@pytest.mark.parametrize("name", IN_PARTS)
def test_fsdp_gathers_and_reduces_for_each_evaluation(name):
    k, params = MEMBERS[name].k, initial_params(dtype=jnp.float32)
    batch = batch_of(EXAMPLES, dtype=jnp.float32)
    step = compiled_step(fsdp(8), MEMBERS[name].make(SGD), params, batch)
    crossing = traffic(step)
    assert crossing.arrays.pop("all-gather") == times(k + 1, params)
    reduced = crossing.arrays.pop("all-reduce", Counter())
    for shard, n in crossing.arrays.pop("reduce-scatter", Counter()).items():
        reduced[8 * shard] += n
    assert reduced == times(k + 1, params)
    assert not crossing.arrays
    # Losses; norms and angles, summed over the shards of each parameter.
    assert crossing.scalars <= losses(k) + len(params) * (k + 4)


@pytest.mark.parametrize("name", IN_PARTS)
def test_a_mesh_reduces_shards_of_k_plus_1_gradients(name):
    k, params = MEMBERS[name].k, initial_params(dtype=jnp.float32)
    batch = batch_of(EXAMPLES, dtype=jnp.float32)
    layout = LAYOUTS["two_dimensional"]
    step = compiled_step(layout, MEMBERS[name].make(SGD), params, batch)
    crossing = traffic(step)
    activations = Counter({EXAMPLES // 4 * SIZES[-1]: k + 1})  # summed over "model"
    assert crossing.arrays == {
        "all-reduce": times(k + 1, params, layout.sharding) + activations
    }
    assert crossing.scalars <= losses(k) + len(params) * (k + 4)


def test_micro_batches_leave_the_batch_where_it_is(x64):
    """Each of n parts has its gradient reduced; no example moves."""
    parts, params, batch = 4, initial_params(), batch_of(EXAMPLES)
    optimizer = MEMBERS["adaptive_k2"].make(SGD)
    step = compiled_step(
        DATA_PARALLEL, optimizer, params, batch, loss_fn, micro_batches=parts
    )
    crossing = traffic(step)
    assert set(crossing.arrays) == {"all-reduce"}
    assert crossing.arrays["all-reduce"] <= times(parts * (K + 1), params)
    placed = DATA_PARALLEL.place(optimizer, params)
    result = step(*placed, *DATA_PARALLEL.place_batch(batch))
    assert_close(result, on_one_device("adaptive_k2", "sgd")[0])


# m-SAM against a loop over groups.

IN_GROUPS = ["sam", "multistep_asam_average", "lookbehind_sam"]
IN_GROUPS += ["lookbehind_asam_adaptive"]


@pytest.mark.parametrize(
    ("name", "how"),
    each(
        [(name, "shard_map") for name in IN_GROUPS]
        + [(name, m) for name in IN_GROUPS[::3] for m in (4, 8, 16)],
        [(IN_GROUPS[-1], 16)],
    ),
)
def test_groups_equal_a_loop_over_groups(name, how, x64):
    """A group on each device, by `shard_map`; or m examples each, in a sharded batch.

    There are one or two groups on a device, or one on two of them.
    """
    m = EXAMPLES // 8 if how == "shard_map" else how
    batch = batch_of(EXAMPLES)
    groups = list(zip(*(jnp.split(z, EXAMPLES // m) for z in batch), strict=True))
    grad = jax.jit(jax.grad(loss_fn))
    grads = [
        lambda p, group=group: jax.tree.map(np.asarray, grad(p, *group))
        for group in groups
    ]
    start = jax.tree.map(np.asarray, initial_params())
    trajectory = reference.grouped_steps(
        start,
        grads,
        reference.SGD(0.1, 0.9, 0.0),
        GROUPED[name].reference(K),
        RHO,
        STEPS,
    )
    axis_name = "data" if how == "shard_map" else "group"
    optimizer = GROUPED[name].make(SGD, RHO, K, axis_name=axis_name)
    if how == "shard_map":
        step = compiled_groups(optimizer, initial_params(), batch)
    else:
        options = {"m": m, "axis_name": axis_name}
        step = compiled_step(
            DATA_PARALLEL, optimizer, initial_params(), batch, loss_fn, **options
        )
    params, state = DATA_PARALLEL.place(optimizer, initial_params())
    if how != "shard_map":
        batch = DATA_PARALLEL.place_batch(batch)
    whole_loss = jax.jit(loss_fn)
    before = start
    for expected in trajectory:
        loss = whole_loss(before, *map(np.asarray, batch))
        params, state, out = step(params, state, *batch)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12),
            params,
            expected,
        )
        np.testing.assert_allclose(out.loss, loss, rtol=1e-12)
        before = expected
    DATA_PARALLEL.assert_kept((params, state), start)


# A step in place of the user's own, inside `jax.pmap` or `jax.shard_map`: with an axis
# that the optimizer doesn't know, everything is that of the whole batch.


def under_pmap(step, parts):
    """Every device has parameters of its own, of which none should leave the others."""
    mapped = jax.pmap(step, axis_name="data", devices=jax.devices()[:parts])
    copy = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * parts), tree)
    split = lambda x: x.reshape(parts, -1, *x.shape[1:])
    return mapped, copy, split, lambda tree: tree


def under_shard_map(step, parts):
    """With parameters in as many copies, so that they could differ."""

    def one(params, state, *batch):
        params, state = jax.tree.map(lambda x: x[0], (params, state))
        result = step(params, state, *batch)
        return jax.tree.map(lambda x: x[None], result)

    mapped = jax.shard_map(
        one, mesh=mesh_of(parts), in_specs=by_data, out_specs=by_data, check_vma=False
    )
    copy = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * parts), tree)
    return jax.jit(mapped), copy, lambda x: x, lambda tree: tree


def under_checked_shard_map(step, parts):
    """As users write it: parameters are one and the same for all devices, by type."""
    mapped = jax.shard_map(
        step,
        mesh=mesh_of(parts),
        in_specs=(whole, whole, by_data, by_data),
        out_specs=whole,
    )
    return jax.jit(mapped), lambda x: x, lambda x: x, lambda x: np.asarray(x)[None]


UNDER = {
    "pmap": under_pmap,
    "shard_map": under_shard_map,
    "checked shard_map": under_checked_shard_map,
}
WHOLE_BATCH = {
    "sgd": lambda base: base,
    "sam": lambda base: lb.sam(base, RHO),
    "asam": lambda base: lb.asam(base, RHO),
    "average": lambda base: lb.multistep_sam(base, RHO, 3, average=True),
    "lookbehind": lambda base: lb.lookbehind_sam(base, RHO, 3, ADAPTIVE),
    "2k": lambda base: lb.lookbehind_sam(base, RHO, 3, reuse_gradients=False),
    "pullback": lambda base: lb.lookbehind_sam(base, RHO, 3, pullback="pullback"),
    "gsam": lambda base: lb.gsam(base, RHO),
    "wsam": lambda base: lb.wsam(base, RHO),
    "friendly": lambda base: lb.friendly_sam(base, RHO),
    "lookahead": lambda base: lb.lookahead(lb.sam(base, RHO), k=2),
}


@functools.cache
def with_the_whole_batch(name):
    """The start and three steps with all examples on one device."""
    optimizer, params = WHOLE_BATCH[name](SGD), initial_params()
    step = jax.jit(lb.make_step(loss_fn, optimizer))
    trajectory = [(params, optimizer.init(params), None)]
    for _ in range(3):
        trajectory.append(step(*trajectory[-1][:2], *batch_of(EXAMPLES)))
    return trajectory


def assert_all_have(results, expected, stack):
    """All devices have the same results, and they are what is expected."""
    results = jax.tree.map(lambda x: np.asarray(stack(x)), results)
    for x in jax.tree.leaves(results):
        np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape))
    assert_close(jax.tree.map(lambda x: x[0], results), expected)


@pytest.mark.parametrize(
    ("how", "name"),
    each(
        [(how, name) for how in UNDER for name in WHOLE_BATCH],
        [("checked shard_map", name) for name in ("sgd", "lookbehind")],
        slow=[("pmap", name) for name in WHOLE_BATCH if name != "friendly"],
    ),
)
def test_an_axis_takes_gradients_of_the_whole_batch(how, name, x64):
    """All devices keep the same parameters, those of one device with all examples."""
    step = lb.make_step(loss_fn, WHOLE_BATCH[name](SGD), axis_name="data")
    mapped, copy, split, stack = UNDER[how](step, 8)
    (*start, _), *trajectory = with_the_whole_batch(name)
    here = copy(tuple(start))
    for expected in trajectory:
        *here, out = mapped(*here, *map(split, batch_of(EXAMPLES)))
        assert_all_have((*here, out), expected, stack)


@pytest.mark.thorough
@pytest.mark.parametrize("how", UNDER)
def test_the_optimizers_axis_makes_groups_of_devices(how, x64):
    """With the same name in the optimizer, m-SAM, as on one device with m."""
    parts = 8
    optimizer = lb.lookbehind_sam(SGD, RHO, 3, axis_name="data")
    mapped, copy, split, stack = UNDER[how](
        lb.make_step(loss_fn, optimizer, axis_name="data"), parts
    )
    params, batch = initial_params(), batch_of(EXAMPLES)
    there = params, optimizer.init(params)
    here = copy(there)
    grouped = jax.jit(
        lb.make_step(loss_fn, optimizer, axis_name="data", m=EXAMPLES // parts)
    )
    for _ in range(2):
        *here, out = mapped(*here, *map(split, batch))
        *there, expected = grouped(*there, *batch)
        assert_all_have((*here, out), (*there, expected), stack)


@pytest.mark.parametrize(
    "how", each(["pmap", "checked shard_map"], ["checked shard_map"])
)
def test_a_whole_batch_over_devices_reduces_k_plus_1_gradients(how):
    """What crosses is what would without an axis: a gradient for each evaluation."""
    optimizer = lb.lookbehind_sam(SGD, RHO, 3)
    step = lb.make_step(loss_fn, optimizer, axis_name="data")
    mapped, copy, split, _ = UNDER[how](step, 8)
    params = initial_params(dtype=jnp.float32)
    batch = batch_of(EXAMPLES, dtype=jnp.float32)
    arguments = *copy((params, optimizer.init(params))), *map(split, batch)
    crossing = traffic(mapped.lower(*arguments).compile())
    assert crossing.arrays == {"all-reduce": times(4, params)}
    assert crossing.scalars == losses(3)


def test_the_whole_batch_with_two_axes(x64):
    """Data parallel over both axes of a mesh."""
    mesh = jax.make_mesh(
        (4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    optimizer, params = lb.lookbehind_sam(SGD, RHO, 3), initial_params()
    batch = batch_of(EXAMPLES)
    both = jax.P(("data", "model"))
    step = jax.shard_map(
        lb.make_step(loss_fn, optimizer, axis_name=("data", "model")),
        mesh=mesh,
        in_specs=(whole, whole, both, both),
        out_specs=whole,
    )
    arguments = params, optimizer.init(params), *batch
    expected = jax.jit(lb.make_step(loss_fn, optimizer))(*arguments)
    assert_close(jax.jit(step)(*arguments), expected)


def test_an_overflow_on_one_device_stops_all(x64):
    parts = 8
    optimizer = lb.lookbehind_sam(SGD, RHO, 3)
    step = lb.make_step(loss_fn, optimizer, axis_name="data")

    def scaled(params, state, x, y):
        return step(params, state, x, y, dynamic_scale=DynamicScale(scale=2.0))

    mapped, copy, split, _ = under_pmap(scaled, parts)
    params, (x, y) = initial_params(), batch_of(EXAMPLES)
    start = copy((params, optimizer.init(params)))
    for spoilt in (False, True):
        given = x.at[0, 0].set(jnp.inf) if spoilt else x
        *after, out = mapped(*start, split(given), split(y))
        assert (out.finite == (not spoilt)).all()
        assert (out.dynamic_scale.scale == (1.0 if spoilt else 2.0)).all()
        moved = jax.tree.map(lambda a, b: (a != b).any(), tuple(after), start)
        assert any(jax.tree.leaves(moved)) == (not spoilt)
