"""The trainer: what it is told, what it writes, and how it goes on."""

import contextlib
from dataclasses import replace
import functools
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from tensorboardX.proto import event_pb2

from examples.images import data
from examples.images.config import Config
from examples.images.models import MODELS
from examples.images.models import VisionTransformer
from examples.images.training import Training
from examples.trainer import runs
from tests.examples.images.test_models import make_tensors

SMALL = {"epochs": 2, "batch_size": 128, "weight_decay": 1e-4}


@pytest.fixture(autouse=True)
def standard_promotion():
    """Flax's layers and Optax's Adam aren't written for strictness."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


def train(config, dataset, folder):
    return runs.run(config, Training(config, dataset), folder)


# What it is told.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "resnet"}, r"^--model must be one of"),
        ({"batch_size": 10**6}, r"^--batch-size is too large"),
        ({"mesh": ("data=3",)}, r"^--mesh must be of all 8 devices.* got 'data=3'"),
        ({"mesh": ("data",)}, r"^--mesh must look like .* got 'data'"),
        ({"mesh": ("data=8",), "batch_size": 12}, r"^--batch-size must be a multiple"),
        ({"pretrained": "x"}, r"^--pretrained is for ViTs; got --model convnet"),
    ],
)
def test_what_it_refuses(values, message, digits):
    with pytest.raises(ValueError, match=message):
        Training(replace(Config(), **values), digits)


# What it does.


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"optimizer": "base", "base": "adamw", "learning_rate": 0.005},
        {
            "optimizer": "multistep_asam",
            "average": True,
            "base": "adam",
            "learning_rate": 0.005,
        },
        {"alpha": "adaptive-per-tensor", "micro_batches": 2},
        {"switch_minibatches": True, "reuse_gradients": False},
        {"m": 32, "lookahead": 3, "label_smoothing": 0.1},
        {"model": "vit-micro", "precision": "bf16", "nesterov": True},
        {"phases": ("base until 0.5", "sam until 1")},
    ],
)
def test_every_way_learns(values, digits, tmp_path):
    config = replace(Config(**SMALL), **values)
    summary = train(config, digits, tmp_path)
    first, last = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert last["loss"] < first["loss"]
    assert summary["final_test_accuracy"] == last["test_accuracy"] > 0.2


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param(("data=8",), marks=pytest.mark.slow),
        pytest.param(("fsdp=8",), marks=pytest.mark.slow),
        ("data=2", "fsdp=4"),
    ],
)
def test_many_devices_train_as_one_does(mesh, digits, tmp_path):
    config = Config(**SMALL | {"epochs": 1}, alpha="adaptive")
    train(config, digits, tmp_path / "one")
    many = replace(config, mesh=mesh)
    training = Training(many, digits)
    runs.run(many, training, tmp_path / "many")
    one, many = (
        json.loads((tmp_path / name / "log.jsonl").read_text())
        for name in ("one", "many")
    )
    assert many == pytest.approx(one, rel=1e-4)
    kernel = training.shapes.params["Dense_0"]["kernel"]
    parts = kernel.shape[0] // kernel.sharding.shard_shape(kernel.shape)[0]
    assert parts == training.layout.mesh.shape["fsdp"]


@pytest.mark.slow
def test_one_call_for_many_steps_takes_them_one_by_one(digits):
    config = Config(**SMALL, phases=("base until 0.5", "lookbehind_sam until 1"))
    states = []
    for scans in (False, True):
        training = Training(config, digits)
        training.scans = scans
        assert training.steps_per_epoch == 10
        state = training.advance(training.init(), 6, 10)
        states.append(training.advance(state, 10, 12))  # another phase
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_on_an_accelerator_an_epoch_is_one_program(digits):
    training = Training(Config(**SMALL), digits)
    batches = jax.ShapeDtypeStruct((10, 128), np.int32)
    scan: Any = training.scan(training.phases[0])
    traced = scan.trace(training.shapes, training.feed.arrays, batches)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("stablehlo.while") == 2  # over the steps, and over the climb
    assert "callback" not in program


def test_a_pretrained_vit_is_fine_tuned_at_another_size_and_head(
    digits, tmp_path, monkeypatch
):
    vit = functools.partial(VisionTransformer, patch=2, width=8, depth=2, heads=2)
    monkeypatch.setitem(MODELS, "vit", vit)
    save_file(make_tensors(), tmp_path / "model.safetensors")
    config = Config(
        **SMALL,
        model="vit",
        pretrained=tmp_path / "model.safetensors",
        image_size=12,
        optimizer="base",
    )
    training = Training(config, digits)
    params = training.init().params
    assert params["positions"].shape[-2] == 1 + 6 * 6
    np.testing.assert_array_equal(params["head"]["kernel"], np.zeros((8, 10)))
    np.testing.assert_array_equal(
        params["norm"]["scale"], make_tensors()["vit.layernorm.weight"]
    )
    black = training.prepare(jax.numpy.zeros((1, 8, 8, 1), np.uint8))
    np.testing.assert_array_equal(black, np.full((1, 12, 12, 3), -1.0))
    runs.run(config, training, tmp_path / "run")
    first, last = map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
    assert last["loss"] < first["loss"]


def test_logs_for_tensorboard_hold_the_records(digits, tmp_path):
    train(Config(**SMALL, log=("tensorboard",)), digits, tmp_path)
    (events,) = (tmp_path / "tensorboard").iterdir()
    records = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    expected = [
        (name, record["step"], pytest.approx(value, rel=1e-6))
        for record in records
        for name, value in record.items()
    ]
    assert scalars(events) == expected


def scalars(path):
    """Of a file of events; each has its length before it, and a checksum after both."""
    content, start, found = path.read_bytes(), 0, []
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        event = event_pb2.Event.FromString(content[start + 12 : start + 12 + length])
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
        start += 16 + length
    return found


def test_the_same_seed_gives_the_same_numbers(digits, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(Config(**SMALL | {"epochs": 1}, seed=seed), digits, tmp_path / name)
    a, b, c = ((tmp_path / name / "log.jsonl").read_text() for name in "abc")
    assert a == b != c


def test_a_finished_run_stays_as_it_was(digits, tmp_path):
    train(Config(**SMALL | {"epochs": 1}), digits, tmp_path)
    path = tmp_path / "summary.json"
    path.write_text(path.read_text().replace('"revision": "', '"revision": "of-then-'))
    again = train(Config(**SMALL | {"epochs": 1}), digits, tmp_path)
    assert again["revision"].startswith("of-then-")
    assert again == json.loads(path.read_text())


def test_a_run_of_another_configuration_is_refused(digits, tmp_path):
    train(Config(**SMALL), digits, tmp_path)
    with pytest.raises(ValueError, match=r"rho: None there, 0\.1 here"):
        train(Config(**SMALL, rho=0.1), digits, tmp_path)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(digits, tmp_path):
    config = Config(**SMALL)
    train(config, digits, tmp_path / "whole")
    train(config, digits, tmp_path / "damaged")
    newest = max(
        (tmp_path / "damaged/checkpoints").iterdir(), key=lambda p: int(p.name)
    )
    for file in newest.rglob("*"):
        if file.is_file() and file.stat().st_size > 100:
            file.write_bytes(file.read_bytes()[:50])
    with pytest.warns(UserWarning, match=rf"step {newest.name} can't be read"):
        train(config, digits, tmp_path / "damaged")
    logs = [
        (tmp_path / name / "log.jsonl").read_text() for name in ("whole", "damaged")
    ]
    assert logs[0] == logs[1]


def test_a_diverged_run_stops_and_keeps_the_last_good_checkpoint(digits, tmp_path):
    config = Config(**SMALL, learning_rate=1e30, save_every=1)
    with pytest.raises(
        runs.Diverged, match=r"^the loss was (nan|inf) by step .* Try a"
    ):
        train(config, digits, tmp_path)


# As real processes.

# A checkpoint every few steps, so that many kills hit one.
COMMAND = [sys.executable, "-m", "examples.images", "--epochs", "10", "--batch-size"]
COMMAND += ["64", "--save-every", "7", "--output"]


@contextlib.contextmanager
def started(folder):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    process = subprocess.Popen(
        [*COMMAND, str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        yield process
        process.kill()


def finish(folder):
    with started(folder) as process:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output


def outcome(folder):
    """Log and state of a finished run."""
    newest = max((folder / "checkpoints").iterdir(), key=lambda p: int(p.name))
    state = runs.ocp.StandardCheckpointer().restore(newest / "state")
    return (folder / "log.jsonl").read_text(), state


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Folder of a whole run, and its seconds."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    begun = time.monotonic()
    finish(folder)
    return folder, time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_any_moment_it_ends_the_same(seed, uninterrupted, tmp_path):
    whole, seconds = uninterrupted
    folder = tmp_path / "killed"
    moments = random.Random(seed)
    for _ in range(2):
        with started(folder):
            time.sleep(moments.uniform(0.2, 1) * seconds)
    finish(folder)
    log, state = outcome(folder)
    expected_log, expected_state = outcome(whole)
    assert log == expected_log
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(number, uninterrupted, tmp_path):
    folder = tmp_path / "stopped"
    with started(folder) as process:
        while not list((folder / "checkpoints").glob("[0-9]*")):
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert f"stopped by {signal.Signals(number).name} and saved at step" in output
    finish(folder)
    assert outcome(folder)[0] == outcome(uninterrupted[0])[0]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    """On two virtual devices, found as Open MPI's processes find each other."""
    folders = tmp_path / "one", tmp_path / "two"
    command = [sys.executable, "-m", "examples.images", "--epochs", "2"]
    command += ["--mesh", "data=2", "--output"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    alone = environment | {"JAX_NUM_CPU_DEVICES": "2"}
    subprocess.run([*command, str(folders[0])], env=alone, check=True, timeout=300)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    together = environment | {
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COORDINATOR_ADDRESS": address,
        "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": "2",
    }
    pair = [
        subprocess.Popen(
            [*command, str(folders[1]), "--distributed"],
            env=together
            | {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
        )
        for rank in "01"
    ]
    assert [process.wait(timeout=300) for process in pair] == [0, 0]
    one, two = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in folders
    )
    for record, expected in zip(two, one, strict=True):
        assert record == pytest.approx(expected, rel=1e-4)
    assert (folders[1] / "summary.json").exists()
