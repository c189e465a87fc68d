"""A stopped comparison continues, and nothing of another is lost."""

import dataclasses
import json

import pytest

from examples.lifelong import __main__ as program
from examples.lifelong import learning
from examples.lifelong.config import Lifelong


@pytest.fixture
def two(tiny):
    return dataclasses.replace(tiny, methods=("sgd", "sam+replay"))


def accuracies(results):
    return {name: it["accuracies"] for name, it in results["methods"].items()}


def stop_at(monkeypatch, call):
    """Ctrl-C in a call of `learn`; returns the arguments of all calls."""
    learn, calls = learning.learn, []

    def stopped(learner, stream, seed):
        calls.append((learner.method.title, seed))
        if len(calls) == call:
            raise KeyboardInterrupt
        return learn(learner, stream, seed)

    monkeypatch.setattr(learning, "learn", stopped)
    return calls


def test_a_stopped_comparison_continues(two, tmp_path, monkeypatch):
    expected = learning.run(two)
    calls = stop_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        learning.run(two, tmp_path / "new")
    kept = json.loads((tmp_path / "new/lifelong.json").read_text())
    assert [len(it) for it in accuracies(kept).values()] == [2, 1]
    results = learning.run(two, tmp_path / "new")
    assert accuracies(results) == accuracies(expected)
    assert calls == [("SGD", 0), ("SGD", 1), ("SAM", 0), ("SAM", 1), ("SAM", 1)]
    assert json.loads((tmp_path / "new/lifelong.json").read_text()) == results
    others = dataclasses.replace(two, methods=("sgd", "sam"))
    more = learning.run(others, tmp_path / "new")
    assert list(more["methods"]) == ["sgd", "sam+replay", "sam"]
    assert calls[5:] == [("SAM", 0), ("SAM", 1)]


def test_a_stopped_program_says_how_to_resume(two, tmp_path, monkeypatch):
    stop_at(monkeypatch, 1)
    config = dataclasses.replace(two, output=tmp_path)
    monkeypatch.setattr(program.command, "parse", lambda *_: config)
    with pytest.raises(SystemExit, match=r"SIGINT\. Run the same command again to res"):
        program.main([])


def test_results_of_another_configuration_are_kept(two, tmp_path):
    learning.run(two, tmp_path)
    before = (tmp_path / "lifelong.json").read_bytes()
    other = dataclasses.replace(two, rho=0.2, seeds=3)
    with pytest.raises(ValueError, match="results of another configuration") as refused:
        learning.run(other, tmp_path)
    assert str(refused.value).splitlines()[1:] == [
        "  rho: 0.05 there, 0.2 here",
        "  seeds: 2 there, 3 here",
    ]
    assert (tmp_path / "lifelong.json").read_bytes() == before


@pytest.mark.parametrize("damaged", ["", "[]", '{"config": {}}'])
def test_damaged_results_are_kept(damaged, tmp_path):
    path = tmp_path / "lifelong.json"
    path.write_text(damaged)
    with pytest.raises(ValueError, match=r"lifelong\.json is damaged"):
        learning.run(Lifelong(), tmp_path)
    assert path.read_text() == damaged


def test_another_version_is_reported(two, tmp_path, capsys):
    learning.run(two, tmp_path)
    path = tmp_path / "lifelong.json"
    path.write_text(path.read_text().replace('"revision": "', '"revision": "old-'))
    learning.run(two, tmp_path)
    assert "lifelong.json began with revision old-" in capsys.readouterr().err
