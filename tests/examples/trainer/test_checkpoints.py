"""Checkpoints: no kill halves one, no flipped bit gets through, nothing is lost."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from examples.trainer import checkpoints
from examples.trainer import folders
from examples.trainer import runs
from examples.trainer.checkpoints import Checkpoints
from examples.trainer.checkpoints import Saved
from tests.examples.trainer.tiny import names
from tests.examples.trainer.tiny import outcome
from tests.examples.trainer.tiny import Tiny
from tests.examples.trainer.tiny import train
from tests.library.members import each


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder)
    return folder


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_each_of_60_flipped_bits_is_noticed(whole, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole / "checkpoints", folder)
    assert names(tmp_path) == ["12", "8"]
    chosen = random.Random(0)
    found = files(folder / "12")
    assert {"SHA256SUMS", "run.json"} < {path.name for path in found}
    for i in range(60):
        path = found[i % len(found)]
        bit = chosen.randrange(8 * path.stat().st_size)
        flip(path, bit)
        with Checkpoints(folder, keep=2) as kept:
            saved = kept.restore(Tiny().shapes)
        assert saved is not None
        assert int(saved.state.step) == 8
        line, end = capsys.readouterr().err.split("\n")
        assert line == (
            f"{folder}/12 is damaged: it is kept as damaged-12, and an earlier one is "
            "tried"
        )
        assert not end
        os.rename(folder / "damaged-12", folder / "12")
        flip(path, bit)
    with Checkpoints(folder, keep=2) as kept:
        saved = kept.restore(Tiny().shapes)
    assert saved is not None
    assert int(saved.state.step) == 12


@pytest.mark.parametrize("which", each(range(3), [0]))
def test_after_a_flipped_bit_the_run_ends_as_it_would_have(which, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    found = files(tmp_path / "run/checkpoints/12")
    flip(max(found, key=lambda path: path.stat().st_size), 99 + which)
    train(tmp_path / "run")
    assert names(tmp_path / "run") == ["12", "8", "damaged-12"]
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_missing_or_additional_file_is_damage_too(whole, tmp_path):
    for change in (
        lambda path: (path / "SHA256SUMS").unlink(),
        lambda path: (path / "run.json").unlink(),
        lambda path: (path / "state" / "more").write_text(""),
    ):
        folder = tmp_path / "12"
        shutil.copytree(whole / "checkpoints/12", folder)
        assert checkpoints.intact(folder)
        change(folder)
        assert not checkpoints.intact(folder)
        shutil.rmtree(folder)


def test_a_name_that_is_taken_gets_a_number(tmp_path, capsys):
    for _ in range(3):
        (tmp_path / "12").mkdir()
        folders.put_aside(tmp_path / "12", "nothing happens")
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["damaged-12", "damaged-12-2", "damaged-12-3"]
    assert "it is kept as damaged-12-3, and nothing happens" in capsys.readouterr().err


def test_where_all_are_damaged_the_run_does_not_start_again(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    for step in ("8", "12"):
        flip(folder / "checkpoints" / step / "run.json", 5)
    log = (folder / "log.jsonl").read_text()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^no checkpoint in .* is intact; give"):
            train(folder)
        assert names(folder) == ["damaged-12", "damaged-8"]
        assert (folder / "log.jsonl").read_text() == log
    shutil.rmtree(folder / "checkpoints")
    train(folder)
    assert outcome(folder) == outcome(whole)


def test_sha256sum_can_check_them(whole):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=whole / "checkpoints/12", check=True)


# Killed at any moment.


class Killed(BaseException):
    """As SIGKILL: nothing after it is done."""


def die_after(patch, calls):
    """Lets so many renames, deletions and checksums pass; the next is never done."""
    left = iter(range(calls))

    def dying(function):
        def called(*arguments, **values):
            if next(left, None) is None:
                raise Killed
            return function(*arguments, **values)

        return called

    for module, name in (
        (os, "rename"),
        (shutil, "rmtree"),
        (checkpoints, "checksums"),
    ):
        patch.setattr(module, name, dying(getattr(module, name)))


@pytest.mark.parametrize("calls", each(range(12), range(4, 8)))
def test_killed_at_any_moment_the_last_whole_checkpoint_is_there(
    calls, tmp_path, monkeypatch
):
    """Each checkpoint takes a rename by Orbax, checksums, a rename, and a deletion."""
    training = Tiny()
    shapes, state, whole = training.shapes, training.init(), None
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        die_after(patch, calls)
        with Checkpoints(tmp_path / "checkpoints", keep=1) as kept:
            for step in range(1, 5):
                state = training.advance(state, step - 1, step)
                kept.save(step, Saved(state, [{"step": step}], 0.0))
                kept.wait()
                whole = step
                kept.confirm()
                kept.wait()
        pytest.fail("it wasn't killed")
    with Checkpoints(tmp_path / "checkpoints", keep=1) as kept:
        saved = kept.restore(shapes)
    assert (saved is None) == (whole is None)
    if saved is not None:
        assert int(saved.state.step) == whole
        assert saved.records == [{"step": whole}]
    assert not [name for name in names(tmp_path) if name.startswith("partial")]


@pytest.mark.parametrize("calls", each([2, 9], [9]))
def test_killed_while_it_saves_it_ends_the_same(calls, whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        die_after(patch, calls)
        with pytest.raises(Killed):
            train(folder, save_every=2, keep=1)
    assert not (folder / "summary.json").exists()
    train(folder, save_every=2, keep=1)
    assert outcome(folder) == outcome(whole)
    assert names(folder) == ["12"]


SAVING = """
import pathlib, sys
from tests.examples.trainer.tiny import Tiny, train
train(pathlib.Path(sys.argv[1]), Tiny(epochs=50), save_every=1, keep=1)
"""


@pytest.mark.slow
def test_processes_killed_while_they_save_lose_nothing(tmp_path):
    """It saves all the time, so that most kills hit that."""
    folder, moments = tmp_path / "run", random.Random(0)
    command = [sys.executable, "-c", SAVING]

    def newest():
        found = names(folder) if (folder / "checkpoints").exists() else []
        return max(map(int, filter(str.isdigit, found)), default=0)

    for _ in range(10):
        before = newest()
        with subprocess.Popen([*command, str(folder)]) as process:
            while newest() == before:
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.5))
            process.kill()
        assert checkpoints.intact(folder / "checkpoints" / str(newest()))
    for path in (folder, tmp_path / "whole"):
        subprocess.run([*command, str(path)], check=True)
    assert names(folder) == ["200"]
    whole = outcome(tmp_path / "whole", Tiny(epochs=50))
    assert outcome(folder, Tiny(epochs=50)) == whole


def test_the_one_before_stays_until_the_loss_from_the_newest_is_known(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", keep=1) as kept:
        state = Tiny().init()
        for step in (1, 2, 3):
            kept.save(step, Saved(state, [], 0.0))
            kept.wait()
            assert str(step) in names(tmp_path)
            assert len(names(tmp_path)) == min(step, 2)
            kept.confirm()
            kept.wait()
            assert names(tmp_path) == [str(step)]


def test_what_was_never_whole_is_not_used(whole, tmp_path, capsys):
    """Without checksums a checkpoint is as good as damaged."""
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/checkpoints/12/SHA256SUMS").unlink()
    (tmp_path / "run/checkpoints/partial-13/state").mkdir(parents=True)
    train(tmp_path / "run")
    assert "12 is damaged" in capsys.readouterr().err
    assert names(tmp_path / "run") == ["12", "8", "damaged-12"]


# What it doesn't understand, it leaves alone.


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (Tiny(size=3), r"\.params is float32\[2\], and float32\[3\] is wanted"),
        (Tiny(dtype=jnp.float16), r"\.params is float32\[2\], and float16\[2\] is"),
    ],
)
def test_a_state_of_another_shape_names_the_first_leaf(
    training, message, whole, tmp_path
):
    shutil.copytree(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in files(tmp_path / "run")}
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", training)
    assert {path: path.read_bytes() for path in files(tmp_path / "run")} == before


def test_a_leaf_more_or_less_is_named():
    there = {".step": "int32[]", ".params['a']": "float32[2]"}
    here = {".step": "int32[]", ".params['b']": "float32[2]"}
    with pytest.raises(ValueError, match=r"\.params\['b'\] is nothing, and float32"):
        checkpoints.compare(there, here, "12")
    with pytest.raises(ValueError, match=r"\['a'\] is float32\[2\], and nothing is"):
        checkpoints.compare(there, {".step": "int32[]"}, "12")
    checkpoints.compare(here, here, "12")


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no"), MemoryError()]
)
def test_out_of_memory_deletes_nothing(error, whole, tmp_path, monkeypatch):
    def restore(*_):
        raise error

    shutil.copytree(whole, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.ocp.StandardCheckpointer, "restore", restore)
        with pytest.raises(type(error)):
            train(tmp_path / "run")
    assert names(tmp_path / "run") == ["12", "8"]
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_lost_last_checkpoint_has_no_final_state(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    flip(tmp_path / "run/checkpoints/12/run.json", 0)
    with pytest.raises(ValueError, match=r"holds no checkpoint of the last step, 12"):
        runs.final_state(Tiny(), tmp_path / "run")
