"""What is read from compiled programs, and how a step grows."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import reports
from benchmarks.speed import programs
from benchmarks.speed import scaling
from examples.images.models import Transformer
from tests.library.members import each

SMALL = Transformer(vocabulary=16, width=24, heads=2, layers=1, length=8)
ONCE = scaling.Scaling("devices", k=2, repetitions=2)


def compiled(function):
    """For all devices, from eight numbers to eight."""
    mesh = scaling.on(8, "data").mesh
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=jax.P(), out_specs=jax.P(), check_vma=False
    )
    return jax.jit(mapped).lower(jnp.ones(8)).compile()


def total(x):
    return jax.lax.psum(jnp.sin(x), "data")


def looped(length):
    return compiled(lambda x: jax.lax.fori_loop(0, length, lambda i, x: total(x), x))


@pytest.mark.parametrize("length", [1, 5])
def test_what_crosses_in_a_loop_counts_in_every_iteration(length):
    crossing = programs.traffic(looped(length))
    assert crossing.arrays == {"all-reduce": {8: length}}
    assert crossing.bytes == {"all-reduce": 32 * length}
    assert crossing.scalars == 0


def test_a_loop_of_unknown_length_is_refused():
    grown = compiled(lambda x: jax.lax.while_loop(lambda x: x[0] < 9, total, x))
    with pytest.raises(ValueError, match="loop of unknown length"):
        programs.traffic(grown)


def test_each_instruction_is_listed_once():
    kinds = [line.kind for line in programs.instructions(looped(5))]
    assert kinds.count("all-reduce") == 1
    assert kinds.count("while") == 1


@pytest.mark.parametrize(
    ("name", "decoder"),
    each(scaling.DECODERS.items(), [*scaling.DECODERS.items()][:2]),
)
def test_decoders_have_the_parameters_they_are_named_for(name, decoder):
    tokens = jnp.zeros((1, decoder.length), jnp.int32)
    shapes = jax.eval_shape(decoder.init, jax.random.key(0), tokens)
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert size == pytest.approx(float(name), rel=0.07)


@pytest.mark.parametrize("k", each([0, 1, 3], quick=[], slow=[3]))
def test_data_parallel_sums_k_plus_1_gradients(k):
    benchmark = scaling.Scaling("devices", k=k)
    row = scaling.measure(SMALL, 8, benchmark, scaling.on(4, "data"))
    assert row["traffic_bytes"] == {"all-reduce": 4 * (k + 1) * row["parameters"]}
    assert (row["devices"], row["split"], row["samples"]) == (4, False, [])


@pytest.mark.slow
def test_one_device_sends_nothing():
    row = scaling.measure(SMALL, 8, ONCE, scaling.on(1, "data"))
    assert row["traffic_bytes"] == {}


@pytest.mark.thorough
def test_split_parameters_need_less_memory_and_cross_once_for_each_gradient():
    whole = scaling.measure(SMALL, 64, ONCE, scaling.on(1, "data"))
    split = scaling.measure(SMALL, 64, ONCE, scaling.on(8, "fsdp"))
    gathered = split["traffic_bytes"]["all-gather"] / (4 * split["parameters"])
    assert gathered == pytest.approx(3, rel=0.05)
    assert split["step_bytes"] < whole["step_bytes"] / 2


def test_memory_is_that_of_all_there_is():
    """A sum of two arrays: both, and what comes out; a donated one makes its room."""
    x = jnp.ones(1000)
    for donated, arrays in ((), 3), ((0,), 2):
        add = jax.jit(jnp.add, donate_argnums=donated)
        compiled = add.lower(x, x).compile()
        assert scaling.memory(compiled) == 4000 * arrays


@pytest.mark.thorough
def test_what_does_not_fit_is_not_run(monkeypatch):
    benchmark = scaling.Scaling("examples", repetitions=2)
    row = scaling.measure(SMALL, 2, benchmark)
    assert len(row["samples"]) == 2
    monkeypatch.setattr(scaling, "room", lambda: row["step_bytes"])
    assert scaling.measure(SMALL, 2, benchmark)["samples"] == []


@pytest.mark.parametrize(
    "over",
    each(
        ["parameters", "examples", "devices"], quick=[], slow=["parameters", "examples"]
    ),
)
def test_renders_from_json_alone(over, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "DECODERS", dict.fromkeys(["1e6", "1e7"], SMALL))
    monkeypatch.setattr(scaling, "EXAMPLES", (1, 2))
    monkeypatch.setattr(scaling, "DEVICES", (1, 2))
    path = tmp_path / "found.json"
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # there are eight
    scaling.main([over, "--repetitions", "1", "--output", str(path)])
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == (3 if over == "devices" else 2)
    table = path.with_suffix(".md").read_text()
    assert table.count("\n|") == 2 + len(rows)
    path.with_suffix(".md").unlink()
    path.with_suffix(".png").unlink()
    reports.render(path)
    assert path.with_suffix(".md").read_text() == table
    assert path.with_suffix(".png").stat().st_size > 10_000
