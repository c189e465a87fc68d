"""Cells are done once, by whichever process; what they leave is as they were judged."""

import json

import filelock
import numpy as np
import pytest

from benchmarks.evidence import __main__ as program
from benchmarks.evidence import cells
from benchmarks.evidence import streams
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from benchmarks.evidence.questions import QUESTIONS
from examples.images import data
from examples.images.config import Config
from examples.lifelong import tasks
from examples.lifelong.config import Lifelong
from tests.processes import run

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


STREAM = Question(
    about="Does it learn?",
    config=Lifelong(images_per_task=40, model="mlp"),
    train=None,
    rows=(Row("SAM", {"methods": ("sam",)}, ("rho=log:0.01:0.1",)),),
    reference="SAM",
    claims=(),
    trials=1,
    seeds=2,
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(QUESTIONS, "tiny", TINY)


def answer(folder):
    flags = ["--questions", "tiny", "--output", str(folder / "results")]
    program.main([*flags, "--runs", str(folder / "runs")])
    return json.loads((folder / "results" / "tiny.json").read_text())["rows"]


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_a_stream_of_tasks(tmp_path):
    digits = data.load("digits")
    (row,) = STREAM.rows
    trial, seed = (
        cells.measure(STREAM, cells.Cell(row, kind, 0), {"rho": 0.05}, digits, tmp_path)
        for kind in ("trials", "seeds")
    )
    assert 0.5 < trial["valid_accuracy"] <= 1
    assert "test_accuracy" not in trial
    assert 0.5 < seed["test_accuracy"] <= 1
    assert abs(seed["forgetting"]) < 1
    assert seed["gradients"] == 2 * 5 * (40 // 10)


def test_a_trial_of_a_stream_sees_neither_test_images_nor_later_tasks():
    digits = data.load("digits")
    held_out = streams.held_out(digits)
    assert len(held_out.train.labels) + len(held_out.test.labels) == 1297
    assert len(held_out.test.labels) == 130
    stream = streams.first(tasks.split(held_out, 2, seed=0), 2)
    whole = tasks.split(digits, 2, seed=0)
    np.testing.assert_array_equal(stream.classes, whole.classes[:2])
    for examples in (stream.train, stream.test):
        assert set(examples.tasks) == {0, 1}
    assert len(stream.train.labels) < np.sum(whole.train.tasks < 2)


@pytest.mark.thorough
def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    one = TINY._replace(rows=(SAM,), reference=SAM.label, claims=(), seeds=1)
    monkeypatch.setitem(QUESTIONS, "tiny", one)
    before = answer(tmp_path)
    monkeypatch.setattr(cells, "measure", lambda *_: pytest.fail("done again"))
    assert answer(tmp_path) == before
    # Also without the runs.
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert answer(tmp_path) == before


def test_each_search_has_a_seed_of_its_own(monkeypatch, tmp_path):
    seeds = []
    monkeypatch.setattr(
        cells.images,
        "run",
        lambda _, options, *rest: seeds.append(options["seed"]) or {},
    )
    for search in (0, 1):
        question = TINY._replace(search=search)  # of two trials each
        for kind, number in (("trials", 1), ("trials", 2), ("seeds", 3)):
            cell = cells.Cell(SAM, kind, number)
            cells.measure(question, cell, {}, data.load("digits"), tmp_path)
    assert seeds == [1000, 1001, 3, 1001, 1002, 3]


def test_each_search_chooses_among_its_trials():
    question = TINY._replace(searches=2)
    scores = {"0": 0.2, "1": 0.3, "2": 0.5, "3": 0.4}
    trials = {
        number: {"valid_accuracy": score, "params": number}
        for number, score in scores.items()
    }
    row = {"trials": trials}
    assert [cells.best(question, SGD, row, search) for search in (0, 1)] == ["1", "2"]
    del trials["3"]
    assert [cells.best(question, SGD, row, search) for search in (0, 1)] == ["1", None]


def test_seeds_wait_for_all_trials(tiny, tmp_path):
    kept = cells.Kept(tmp_path / "tiny.json", tmp_path / "lock")
    assert cells.parameters(TINY, cells.Cell(SGD, "seeds", 0), kept) is None
    assert cells.parameters(TINY, cells.Cell(SAM, "seeds", 0), kept) == {}
    for number, accuracy in ((1, 0.5), (0, 0.7)):
        found = {"params": {"learning_rate": accuracy}, "valid_accuracy": accuracy}
        assert cells.parameters(TINY, cells.Cell(SGD, "seeds", 0), kept) is None
        kept.add("tiny", cells.Cell(SGD, "trials", number), found)
    assert cells.parameters(TINY, cells.Cell(SGD, "seeds", 0), kept) == {
        "learning_rate": 0.7
    }
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
        cells.parameters(later, cells.Cell(SGD, "seeds", 0), kept)
    first = cells.Kept(tmp_path / "tiny.json", tmp_path / "lock")
    for number in range(2):
        found = {"params": {"learning_rate": number}, "valid_accuracy": 0.1 * number}
        first.add("tiny", cells.Cell(SGD, "trials", number), found)
    assert cells.parameters(later, cells.Cell(SGD, "seeds", 0), kept) == {
        "learning_rate": 1
    }


def test_a_training_that_diverges_counts_as_wrong(tmp_path, monkeypatch):
    def diverge(*_):
        raise FloatingPointError("the loss was nan")

    monkeypatch.setattr(cells.images, "run", diverge)
    for kind, name in (("trials", "valid_accuracy"), ("seeds", "test_accuracy")):
        cell = cells.Cell(SAM, kind, 0)
        found = cells.measure(TINY, cell, {}, None, tmp_path)
        assert found[name] == 0
        assert found["failed"] == "the loss was nan"


@pytest.mark.thorough
def test_an_unknown_question_is_refused():
    done = run("benchmarks.evidence", "--questions", "noise")
    assert done.returncode == 2
    assert done.stderr.strip().startswith("Error: --questions must be among noise-40")
