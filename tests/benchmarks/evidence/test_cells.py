"""Cells are done once, by whichever process; what they leave is as they were judged."""

import json
import subprocess
import sys

import filelock
import pytest

from benchmarks.evidence import __main__ as program
from benchmarks.evidence import cells
from benchmarks.evidence.questions import Claim
from benchmarks.evidence.questions import Question
from benchmarks.evidence.questions import QUESTIONS
from benchmarks.evidence.questions import Row
from examples.images.config import Config

pytestmark = pytest.mark.usefixtures("standard_promotion")

SGD = Row("SGD", {"optimizer": "base"}, ("learning-rate=log:0.01:0.3",))
SAM = Row("SAM, ρ", {"optimizer": "sam", "rho": 0.1})
TINY = Question(
    about="Does it run?",
    config=Config(model="mlp", epochs=2, batch_size=128, label_noise=0.4),
    train=400,
    rows=(SGD, SAM),
    reference="SGD",
    claims=(Claim("A climb pays.", "SAM, ρ", "SGD"),),
    trials=2,
    seeds=2,
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(QUESTIONS, "tiny", TINY)


def answer(folder):
    flags = ["--questions", "tiny", "--output", str(folder / "results")]
    program.main([*flags, "--runs", str(folder / "runs")])
    return json.loads((folder / "results" / "tiny.json").read_text())["rows"]


def test_from_trials_to_a_table(tiny, tmp_path, capsys):
    rows = answer(tmp_path)
    trials, seeds = rows["SGD"]["trials"], rows["SGD"]["seeds"]
    assert [*trials] == [*seeds] == ["0", "1"]
    best = max(trials.values(), key=lambda trial: trial["valid_accuracy"])
    for seed in seeds.values():
        assert seed["params"] == best["params"]
        assert {"test_accuracy", "flipped_accuracy", "test_ece"} <= seed.keys()
        assert seed["best_test_accuracy"] >= seed["test_accuracy"]
        assert seed["gradients"] == 2 * (400 // 128)
    assert trials["0"]["params"] != trials["1"]["params"]
    # A tenth is held out, and the test set isn't looked at.
    assert all("test_accuracy" not in trial for trial in trials.values())
    assert trials["0"]["gradients"] == 2 * (360 // 128)
    assert not rows["SAM, ρ"]["trials"]
    shown = capsys.readouterr().out
    assert "| A climb pays. | SAM, ρ – SGD |" in shown


def test_what_is_done_is_not_done_again(tiny, tmp_path, monkeypatch):
    before = answer(tmp_path)
    monkeypatch.setattr(cells, "measure", lambda *_: pytest.fail("done again"))
    assert answer(tmp_path) == before
    # Also without the runs.
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert answer(tmp_path) == before


def test_seeds_wait_for_all_trials(tiny, tmp_path):
    kept = cells.Kept(tmp_path / "tiny.json", tmp_path / "lock")
    assert cells.parameters(TINY, SGD, kept) is None
    assert cells.parameters(TINY, SAM, kept) == {}
    for number, accuracy in ((1, 0.5), (0, 0.7)):
        found = {"params": {"learning_rate": accuracy}, "valid_accuracy": accuracy}
        assert cells.parameters(TINY, SGD, kept) is None
        kept.add("tiny", cells.Cell(SGD, "trials", number), found)
    assert cells.parameters(TINY, SGD, kept) == {"learning_rate": 0.7}
    assert [*kept.read()["SGD"]["trials"]] == ["0", "1"]


def test_a_cell_of_another_process_is_left_to_it(tiny, tmp_path):
    kept = cells.Kept(tmp_path / "tiny.json", tmp_path / "lock")
    cell = cells.Cell(SAM, "seeds", 0)
    path = tmp_path / f"{cell.name}.lock"
    path.parent.mkdir()
    with filelock.FileLock(path):
        assert not cells.attempt("tiny", TINY, cell, kept, None, tmp_path)


def test_parameters_of_another_question(tiny, tmp_path):
    later = TINY._replace(searched="tiny")
    kept = cells.Kept(tmp_path / "later.json", tmp_path / "lock")
    with pytest.raises(cells.command.Invalid, match=r"^--questions tiny must come"):
        cells.parameters(later, SGD, kept)
    first = cells.Kept(tmp_path / "tiny.json", tmp_path / "lock")
    for number in range(2):
        found = {"params": {"learning_rate": number}, "valid_accuracy": 0.1 * number}
        first.add("tiny", cells.Cell(SGD, "trials", number), found)
    assert cells.parameters(later, SGD, kept) == {"learning_rate": 1}


def test_a_training_that_diverges_counts_as_wrong(tmp_path, monkeypatch):
    def diverge(*_):
        raise FloatingPointError("the loss was nan")

    monkeypatch.setattr(cells.runs, "run", diverge)
    monkeypatch.setattr(cells, "Training", lambda *_: None)
    for kind, name in (("trials", "valid_accuracy"), ("seeds", "test_accuracy")):
        cell = cells.Cell(SAM, kind, 0)
        found = cells.measure(TINY, cell, {}, None, tmp_path)
        assert found[name] == 0
        assert found["failed"] == "the loss was nan"


def test_an_unknown_question_is_refused():
    command = [sys.executable, "-m", "benchmarks.evidence", "--questions", "noise"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("Error: --questions must be among noise-40")
