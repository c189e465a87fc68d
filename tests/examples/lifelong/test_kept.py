"""A stopped comparison continues, and nothing of another is lost."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from examples.images import data
from examples.lifelong import __main__ as program
from examples.lifelong import learning
from examples.trainer import folders
from examples.trainer.command import Stopped


@pytest.fixture
def two(tiny):
    return dataclasses.replace(tiny, methods=("sgd", "sam+replay"))


@pytest.fixture
def calls(monkeypatch):
    """Those of `learn`, by method and seed; Ctrl-C stops the fourth."""
    learn, calls = learning.learn, []

    def stopped(learner, stream, seed):
        calls.append((learner.method.title, seed))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return learn(learner, stream, seed)

    monkeypatch.setattr(learning, "learn", stopped)
    return calls


def accuracies(results):
    return {name: it["accuracies"] for name, it in results["methods"].items()}


def test_a_stopped_comparison_continues(two, tmp_path, calls):
    with pytest.raises(Stopped, match="stopped by SIGINT"):
        learning.run(two, tmp_path / "new")
    results = learning.run(two, tmp_path / "new")
    assert calls == [("SGD", 0), ("SGD", 1), ("SAM", 0), ("SAM", 1), ("SAM", 1)]
    assert accuracies(results) == accuracies(learning.run(two))
    del calls[:]
    others = dataclasses.replace(two, methods=("sam+replay", "sgd"), seeds=3)
    more = learning.run(others, tmp_path / "new")
    assert calls == [("SAM", 2), ("SGD", 2)]
    assert list(more["methods"]) == ["sam+replay", "sgd"]
    assert np.shape(accuracies(more)["sgd"]) == (3, 5, 5)
    assert accuracies(more)["sgd"][:2] == accuracies(results)["sgd"]


def test_seconds_are_those_of_all_runs(two, tmp_path):
    results = learning.run(two, tmp_path)
    seconds = sum(
        json.loads((tmp_path / f"sgd-{seed}.json").read_text())["seconds"]
        for seed in (0, 1)
    )
    assert results["methods"]["sgd"]["seconds"] == seconds


def test_a_folder_of_another_comparison(two, tmp_path):
    learning.run(two, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="another configuration") as refused:
        learning.run(dataclasses.replace(two, rho=0.2), tmp_path)
    assert str(refused.value).splitlines()[1:] == ["  rho: 0.05 there, 0.2 here"]
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_other_data_and_numerics_are_refused(two, tmp_path, digits, monkeypatch):
    learning.run(two, tmp_path)
    with (
        jax.default_prng_impl("rbg"),
        pytest.raises(ValueError, match="prng_impl=thre"),
    ):
        learning.run(two, tmp_path)
    images = digits.train.images.copy()
    images[0, 0, 0] += 1
    changed = data.Examples(images, digits.train.labels)
    other = dataclasses.replace(digits, train=changed)
    monkeypatch.setattr(learning.data, "load", lambda *_: other)
    with pytest.raises(ValueError, match="on other data: digits has changed"):
        learning.run(two, tmp_path)


def test_another_process_is_kept_out(two, tmp_path):
    with folders.locked(tmp_path), pytest.raises(BlockingIOError, match="another proc"):
        learning.run(two, tmp_path)


@pytest.mark.parametrize("damaged", ["", "[]", '{"accuracies": []}'])
def test_a_damaged_run_is_kept(damaged, two, tmp_path):
    learning.run(two, tmp_path)
    path = tmp_path / "sgd-1.json"
    path.write_text(damaged)
    with pytest.raises(ValueError, match=r"sgd-1\.json is damaged"):
        learning.run(two, tmp_path)
    assert path.read_text() == damaged


def test_the_program(tmp_path, capsys):
    small = ("--images-per-task", "10", "--methods", "sgd", "--seeds", "2")
    program.main([*small, "--output", str(tmp_path / "new")])
    kept = {path.name for path in (tmp_path / "new").glob("lifelong.*")}
    assert kept == {"lifelong.json", "lifelong.md", "lifelong.png"}
    assert (tmp_path / "new/lifelong.md").read_text() in capsys.readouterr().out
