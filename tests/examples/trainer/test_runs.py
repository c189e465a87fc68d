"""A run: which folder it takes, how it stops, diverges and resumes."""

import contextlib
import errno
import os
from pathlib import Path
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from examples.trainer import folders
from examples.trainer import meshes
from examples.trainer import provenance
from examples.trainer import runs
from tests.examples.trainer.tiny import log
from tests.examples.trainer.tiny import names
from tests.examples.trainer.tiny import outcome
from tests.examples.trainer.tiny import Tiny
from tests.examples.trainer.tiny import TinyConfig
from tests.examples.trainer.tiny import train
from tests.library.members import each


def content(folder):
    """Of all files, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def run(tmp_path):
    """Folder of a finished run."""
    train(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def one_by_one(monkeypatch):
    """A step in each call."""
    monkeypatch.setattr(runs, "agree", lambda asked, quick: (asked, False))


def program(monkeypatch, capsys, *arguments):
    """The trainer's command line around the tiny training.

    Returns:
      the status, and what it says below its progress.
    """

    def train(config):
        runs.run(config, Tiny(), config.output)

    with pytest.raises(SystemExit) as left:
        runs.main(train, TinyConfig, {"tiny": {}}, "tiny", list(arguments))
    code = left.value.code
    if isinstance(code, str):  # which Python prints, with status 1
        return 1, code
    return code, capsys.readouterr().err.splitlines()[-1]


# Whose folder it is.


def test_a_finished_run_stays_as_it_was(run):
    path = run / "summary.json"
    path.write_text(path.read_text().replace('"revision": "', '"revision": "of-then-'))
    before = content(run)
    assert train(run)["revision"].startswith("of-then-")
    assert content(run) == before


def test_a_run_of_another_configuration_is_refused(run):
    before = content(run)
    with pytest.raises(ValueError, match=r"rho: None there, 0\.1 here"):
        train(run, rho=0.1)
    assert content(run) == before


@pytest.mark.parametrize(
    "path", ["checkpoints/7/model.bin", "log.jsonl", "notes.txt", "config.json"]
)
def test_a_folder_of_something_else_is_refused(path, tmp_path):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("{}")
    before = content(tmp_path)
    with pytest.raises(
        ValueError, match=rf"^--output must be a new folder .*\({path.split('/')[0]},"
    ):
        train(tmp_path)
    assert content(tmp_path) == before
    assert not (tmp_path / ".lock").exists()


def test_the_working_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for output in (".", str(tmp_path), "../" + tmp_path.name):
        with pytest.raises(ValueError, match=r"^--output must be a folder of its own"):
            train(Path(output))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", ["file", "file/run"])
def test_a_file_is_refused(output, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match=r"^--output must be a folder; .*file is a fi"):
        train(tmp_path / output)
    assert (tmp_path / "file").read_text() == "kept"


def test_seeds_share_a_folder_with_nothing_else(tmp_path):
    folder = tmp_path / "runs"
    folders.check(folder, seeds=2)
    (folder / "seed-0").mkdir(parents=True)
    (folder / "plots.png").write_text("")
    folders.check(folder, seeds=2)
    (folder / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds other files \(notes\.txt"):
        folders.check(folder, seeds=2)


def test_a_run_killed_at_its_very_start_is_begun_again(tmp_path):
    for name in (".lock", "provenance.json", "config.json.partial"):
        (tmp_path / name).write_text("")
    train(tmp_path)
    assert len(log(tmp_path)) == 3


@pytest.mark.parametrize("name", ["config.json", "provenance.json", "summary.json"])
@pytest.mark.parametrize("held", each(["", "{", "[1]", "\0", "{}"], ["{"]))
def test_a_damaged_file_is_named_and_left_alone(name, held, run):
    (run / name).write_text(held)
    before = content(run)
    expected = rf"{name} is damaged \(.*\)\. Restore it, or give another --output"
    if (name, held) == ("config.json", "{}"):
        expected = "holds a run of another configuration"
    with pytest.raises(ValueError, match=expected):
        train(run)
    assert content(run) == before


def test_the_programs_refuse_before_any_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.setattr(runs, "run", None)
    status, said = program(monkeypatch, capsys, "--output", str(tmp_path))
    assert status == 2
    assert said.startswith("Error: --output must be a new folder")


@pytest.mark.parametrize("keep", ["0", "-1"])
def test_no_checkpoint_at_all_is_refused(keep, tmp_path, monkeypatch, capsys):
    output = tmp_path / "run"
    status, said = program(monkeypatch, capsys, "--keep", keep, "--output", str(output))
    assert (status, said) == (2, f"Error: --keep must be greater than 0; got {keep}")
    assert not output.exists()


# One process at a time.

HOLD = """
import pathlib, sys, time
from examples.trainer import folders
with folders.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_is_dead(run):
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            before = content(run)
            with pytest.raises(
                BlockingIOError, match=r"^another process is training in"
            ):
                train(run)
            with pytest.raises(
                BlockingIOError, match=r"^another process is training in"
            ):
                runs.final_state(Tiny(), run)
            assert content(run) == before
        finally:
            first.kill()
    train(run)
    assert (run / ".lock").exists()


def test_a_run_that_fails_leaves_its_folder_to_others(run):
    with pytest.raises(ValueError, match="another configuration"):
        train(run, rho=0.1)
    with folders.locked(run):
        pass


# Divergence.

BASE = {"save_every": 1}


@pytest.mark.parametrize("value", each([np.nan, np.inf, -np.inf], [-np.inf]))
def test_no_checkpoint_is_kept_from_which_the_loss_is_not_finite(
    value, tmp_path, one_by_one
):
    training = Tiny(changes={6: {"loss": value}})
    expected = rf"^the loss was {value} by step 7 \(epoch 2\); the last good .* step 5"
    for _ in range(2):
        with pytest.raises(runs.Diverged, match=expected):
            train(tmp_path, training, **BASE)
        # From that of step 6, the loss is the one that isn't finite.
        assert names(tmp_path) == ["4", "5", "diverged-6"]
    assert len(log(tmp_path)) == 1
    assert not (tmp_path / "summary.json").exists()


def test_the_last_good_checkpoint_stays_even_if_one_is_kept(tmp_path, one_by_one):
    training = Tiny(changes={6: {"loss": np.nan}})
    with pytest.raises(runs.Diverged, match="last good checkpoint is of step 5"):
        train(tmp_path, training, keep=1, **BASE)
    assert names(tmp_path) == ["5", "diverged-6"]


def test_a_run_that_diverges_at_once_has_none(tmp_path, one_by_one):
    training = Tiny(changes={1: {"loss": np.nan}})
    for _ in range(2):
        with pytest.raises(runs.Diverged, match="there is no good checkpoint"):
            train(tmp_path, training, **BASE)
        assert names(tmp_path) == ["diverged-1"]


def test_parameters_that_are_not_finite_are_not_saved(tmp_path, one_by_one):
    training = Tiny(changes={5: {"factor": np.nan}})
    with pytest.raises(runs.Diverged, match=r"^a parameter wasn't finite by step 6"):
        train(tmp_path, training, **BASE)
    assert names(tmp_path) == ["4", "5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": np.inf}, "the accuracy was inf by step 12"),
        ({"factor": np.nan, "accuracy": 0.1}, "a parameter wasn't finite by step 12"),
    ],
)
def test_a_run_whose_last_update_diverges_fails(change, message, tmp_path):
    with pytest.raises(runs.Diverged, match=message):
        train(tmp_path, Tiny(changes={11: change}))
    assert not (tmp_path / "summary.json").exists()
    assert names(tmp_path) == ["4", "8"]


def test_a_diverged_program_exits_with_an_error(tmp_path, monkeypatch, capsys):
    changed = Tiny(changes={11: {"factor": np.nan}})
    monkeypatch.setitem(globals(), "Tiny", lambda: changed)
    status, said = program(monkeypatch, capsys, "--output", str(tmp_path / "run"))
    assert status == 2
    assert said.startswith("Error: the accuracy was nan by step 12 (epoch 3); the last")


def test_out_of_memory_is_one_line(tmp_path, monkeypatch, capsys):
    def advance(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 8 GB\nand more")

    monkeypatch.setattr(Tiny, "advance", advance)
    status, said = program(monkeypatch, capsys, "--output", str(tmp_path / "run"))
    assert status == 2
    assert said.startswith("Error: out of memory: try a smaller batch")
    assert said.endswith("(RESOURCE_EXHAUSTED: 8 GB)")


# What a run was begun with.


def test_another_x64_setting_is_refused(run):
    before = content(run)
    expected = "holds a run with jax_enable_x64=False; here it is True. Change that"
    with jax.enable_x64(True), pytest.raises(ValueError, match=expected):
        train(run)
    assert content(run) == before


def test_other_versions_are_said(run, monkeypatch, capsys):
    versions = {**provenance.versions(), "optax": "9.9"}
    monkeypatch.setattr(provenance, "versions", lambda: versions)
    train(run)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; this is 9.9")
    assert f"{run} holds a run that began with optax " in line


def test_other_data_is_refused(tmp_path):
    training = Tiny()
    training.fingerprint = {"a.txt": "12", "b.txt": "34"}
    train(tmp_path, training)
    train(tmp_path, training)
    training.fingerprint = {"a.txt": "12", "b.txt": "56"}
    with pytest.raises(ValueError, match=r"other data: b\.txt has changed\. Restore"):
        train(tmp_path, training)
    with pytest.raises(ValueError, match=r"other data: a\.txt has changed\. Restore"):
        train(tmp_path)


def test_files_that_a_run_keeps_are_written_once(tmp_path):
    training = Tiny()
    training.files = {"words.txt": "a b"}
    train(tmp_path, training)
    training.files = {"words.txt": "c d"}
    train(tmp_path, training)
    assert (tmp_path / "words.txt").read_text() == "a b"


# Stopped.


@pytest.mark.parametrize(
    "number", each([signal.SIGTERM, signal.SIGINT], [signal.SIGTERM])
)
def test_a_signal_saves_and_leaves(
    number, run, tmp_path, one_by_one, monkeypatch, capsys
):
    advance = Tiny.advance

    def interrupted(self, state, start, stop):
        if start == 5:
            signal.raise_signal(number)
        return advance(self, state, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Tiny, "advance", interrupted)
        status, said = program(patch, capsys, "--output", str(tmp_path / "stopped"))
    name = signal.Signals(number).name
    assert (status, said) == (
        1,
        f"stopped by {name} and saved at step 6. Run the same command again to resume.",
    )
    assert names(tmp_path / "stopped") == ["4", "6"]
    train(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(run)


def test_a_signal_in_the_last_step_stops_as_well(
    run, tmp_path, one_by_one, monkeypatch, capsys
):
    advance = Tiny.advance

    def interrupted(self, state, start, stop):
        if stop == self.steps:
            signal.raise_signal(signal.SIGTERM)
        return advance(self, state, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Tiny, "advance", interrupted)
        status, said = program(patch, capsys, "--output", str(tmp_path / "stopped"))
    assert status == 1
    assert said.startswith("stopped by SIGTERM and saved at step 12.")
    assert not (tmp_path / "stopped" / "summary.json").exists()
    train(tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(run)


def test_a_log_without_a_checkpoint_is_said(run, capsys):
    expected = outcome(run)
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints")
    train(run)
    assert f"no checkpoint in {run}: starting at" in capsys.readouterr().err
    assert outcome(run) == expected


def test_a_finished_run_without_checkpoints_is_finished(run):
    shutil.rmtree(run / "checkpoints")
    before = content(run)
    train(run)
    assert content(run) == before


@pytest.mark.parametrize("where", ["state", "log"])
def test_a_full_disk_says_what_to_do(where, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "state":
            patch.setattr(ocp.StandardCheckpointer, "wait_until_finished", full)
        else:
            patch.setattr(runs.logs.JsonLines, "append", full)
        with pytest.raises(OSError, match=r"^the disk of .* is full: make space there"):
            train(tmp_path)
    train(tmp_path)
    assert len(log(tmp_path)) == 3


def test_one_process_asks_only_itself():
    assert meshes.from_first(lambda: {"a": 1}) == {"a": 1}


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


def ending(folder):
    """Log and state of a finished run."""
    newest = max(int(name) for name in names(folder) if name.isdigit())
    state = ocp.StandardCheckpointer().restore(
        (folder / "checkpoints" / str(newest) / "state").absolute()
    )
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
    text, state = ending(folder)
    expected_text, expected_state = ending(whole)
    assert text == expected_text
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)
    assert not [name for name in names(folder) if not name.isdigit()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_from_outside_saves_and_leaves(number, uninterrupted, tmp_path):
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
    assert ending(folder)[0] == ending(uninterrupted[0])[0]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    """On two virtual devices, found as Open MPI's processes find each other."""
    one, two = tmp_path / "one", tmp_path / "two"
    command = [sys.executable, "-m", "examples.images", "--epochs", "2"]
    command += ["--mesh", "data=2"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    alone = environment | {"JAX_NUM_CPU_DEVICES": "2"}
    whole = [*command, "--output", str(one)]
    subprocess.run(whole, env=alone, check=True, timeout=300)

    def finish():
        pair = start_pair(command, two, environment)
        assert [process.wait(timeout=300) for process in pair] == [0, 0]
        for record, expected in zip(log(two), log(one), strict=True):
            assert record == pytest.approx(expected, rel=1e-4)

    finish()
    assert (two / "summary.json").exists()
    assert names(two) == names(one)
    # All processes end with the error that the first one finds.
    other = [*command, "--rho", "0.3"]
    for process in start_pair(other, two, environment, stderr=subprocess.PIPE):
        _, said = process.communicate(timeout=300)
        assert process.returncode == 2, said
        assert "holds a run of another configuration" in said
    # And all take the checkpoint that the first one finds intact.
    newest = max(names(two), key=int)
    flipped = two / "checkpoints" / newest / "run.json"
    flipped.write_text(flipped.read_text().replace("1", "2", 1))
    finish()
    assert f"damaged-{newest}" in names(two)


def start_pair(command, folder, environment, **options):
    """Two processes of one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    together = environment | {
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COORDINATOR_ADDRESS": address,
        "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    }
    return [
        subprocess.Popen(
            [*command, "--output", str(folder), "--distributed"],
            env=together | {"OMPI_COMM_WORLD_RANK": rank},
            text=True,
            **options,
        )
        for rank in "01"
    ]
