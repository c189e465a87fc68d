"""Statistics by hand, and what the tables and pictures say of them."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.evidence import answers
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from benchmarks.evidence.questions import QUESTIONS
from examples.images.config import Config

ROWS = (Row("SGD", {}), Row("SAM", {}, line="a line", x=1), Row("ASAM", {}))


CLAIMS = (Claim("It pays.", "SAM", "SGD"),)


def question(rows=ROWS, **options):
    return Question("Which?", Config(), 100, rows, "SGD", CLAIMS, **options)


def results(**accuracies):
    rows = {
        label: {
            "trials": {},
            "seeds": {
                str(seed): {
                    "params": {"learning_rate": 0.123, "k": 2},
                    "test_accuracy": accuracy,
                    "best_test_accuracy": accuracy + 0.1,
                    "test_ece": 0.05,
                    "gradients": 100 * (1 + (label == "SAM")),
                    "seconds": 7.0,
                }
                for seed, accuracy in enumerate(found)
            },
        }
        for label, found in accuracies.items()
    }
    return {"question": "asked", "rows": rows}


@pytest.fixture
def ask(monkeypatch):
    def set_question(**values):
        monkeypatch.setitem(QUESTIONS, "asked", question(**values))

    return set_question


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("vit", "cifar10, the first 10,000 images, vit-nano, 40 to 120 epochs"),
        ("rates", "fashion_mnist, the first 10,000 images, mlp, 50 epochs"),
        ("split-cifar100", "cifar100, 5 classes a task, conv3, a single pass"),
    ],
)
def test_the_title_says_what_was_learned(name, setting):
    rows = QUESTIONS[name].rows
    runs = {row.label: {"seeds": {"0": {}}} for row in rows}
    asked, learned = answers.title({"question": name, "rows": runs}).splitlines()
    assert asked == QUESTIONS[name].about
    assert learned == f"{setting}; n = 1"
    runs[rows[0].label] = {"seeds": {"0": {}, "1": {}, "2": {}}}
    learned = answers.title({"question": name, "rows": runs})
    assert learned.endswith("; n = 1 to 3, ± is a standard deviation over seeds")


def test_a_difference_is_of_the_paired_test():
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(size=(2, 6))
    found = answers.difference(results(SAM=ours, SGD=theirs), "SAM", "SGD")
    assert found is not None
    expected: Any = stats.ttest_rel(100 * ours, 100 * theirs)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(100 * np.mean(ours - theirs))
    assert found.n == 6


def test_a_difference_needs_two_seeds():
    assert answers.difference(results(SAM=[0.5], SGD=[0.4]), "SAM", "SGD") is None
    assert answers.difference(results(SAM=[0.5, 0.6]), "SAM", "SGD") is None


def test_holm_by_hand():
    # Sorted they are multiplied by 4, 3, 2 and 1, and none falls below one before it.
    assert answers.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx(
        [0.06, 0.04, 0.06, 0.06]
    )
    assert answers.holm([0.6, 0.7]) == [1, 1]
    assert answers.holm([]) == []


def test_verdicts():
    found = answers.Difference(1.0, 0.5, 1.5, 0.01, 5)
    assert answers.verdict(found) == "holds"
    assert answers.verdict(found._replace(mean=-1.0)) == "the opposite holds"
    assert answers.verdict(found._replace(p=0.06)) == "not shown"
    assert answers.verdict(None) == "not run"


def test_tables_by_hand(ask):
    ask()
    # A difference of 10 and 20 points: t = 3 with one degree of freedom.
    shown = answers.table(results(SGD=[0.5, 0.6], SAM=[0.6, 0.8]))
    p = 1 - 2 * np.arctan(3) / np.pi
    half = stats.t.ppf(0.975, 1) * 5
    interval = f"{15 - half:+.2f} to {15 + half:+.2f}"
    end = f"+15.00 | {interval} | {p:.2g} |"
    assert (
        "| SAM | 2 × | 7 | 70.0 ± 14.1 | 80.0 ± 14.1 | 5.0 ± 0.0 | 2 | " + end
    ) in shown
    assert "| SGD | 1 × | 7 | 55.0 ± 7.1 | 65.0 ± 7.1 |" in shown
    assert f"| It pays. | SAM – SGD | {end} 2 | not shown |" in shown
    assert "ASAM" not in shown


def test_parameters_are_named_as_flags():
    cell = {"params": {"learning_rate": 0.1234, "k": 2, "alpha": "adaptive"}}
    assert answers.parameters(cell) == "learning-rate 0.12, k 2, alpha adaptive"


@pytest.mark.parametrize("x", ["", "a number"])
def test_pictures(ask, x):
    ask(x=x)
    found = results(SGD=[0.5, 0.6], SAM=[0.6, 0.8], ASAM=[0.9])
    drawn = answers.figure(found)
    (axes,) = drawn.axes
    if x:
        assert axes.get_xlabel() == x
        (legend,) = drawn.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            *("SGD", "ASAM", "a line")
        ]
    else:
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert labels == ["SGD (1 ×)", "SAM (2 ×)", "ASAM (1 ×)"]  # the best on top


def test_a_map_of_what_is_within_a_point_of_the_best(ask):
    rows = [Row(f"SAM, {x}", {}, "", "SAM, k = 1", x, "SAM") for x in (0.1, 0.2, 0.4)]
    ours = "Lookbehind-SAM"
    rows += [
        Row(f"{ours}, 0.4", {}, line=f"{ours}, k = 2", x=0.4, method=ours),
        Row(f"{ours}, k = 5", {}, line=f"{ours}, k = 5", x=0.4, method=ours),
    ]
    ask(x="ρ", width=True, rows=tuple(rows))
    accuracies = {"SAM, 0.1": [0.795], "SAM, 0.2": [0.8], "SAM, 0.4": [0.7]}
    others = {f"{ours}, 0.4": [0.8, 0.82], f"{ours}, k = 5": [0.795]}
    found = results(**accuracies, **others)
    shown = answers.table(found)
    assert "| SAM | 80.0 | SAM, 0.2 | 2 | 0 | 3 |" in shown
    at = f"{ours}, 0.4"
    assert f"| {ours} | 81.0 | {at} | 1 | 1 | 2 |" in shown
    drawn = answers.figure(found)
    assert "ρ; final test accuracy (%)" in drawn.get_supxlabel()
    sam, lookbehind = drawn.axes
    for axes, method in ((sam, "SAM"), (lookbehind, ours)):
        assert axes.get_title() == method
    weights = {(it.get_text(), it.get_weight()) for it in sam.texts}
    assert weights == {("79.5", "bold"), ("80.0", "bold"), ("70.0", "normal")}
    weights = {(it.get_text(), it.get_weight()) for it in lookbehind.texts}
    assert weights == {("81.0", "bold"), ("79.5", "normal")}
    assert [it.get_text() for it in lookbehind.get_yticklabels()] == ["k = 2", "k = 5"]
    image = lookbehind.images[0].get_array()
    assert image.shape == (2, 3)
    assert np.ma.getmaskarray(np.ma.masked_invalid(image)).sum() == 4
    shades = [it.images[0].get_clim() for it in drawn.axes]
    assert shades[0] == shades[1] == (71, 81)


def test_runs_that_diverged(ask):
    ask()
    found = results(SGD=[0.5, 0.6], SAM=[0.6, 0.8])
    found["rows"]["SGD"]["seeds"] = {
        seed: {"params": {}, "failed": "loss is nan", "test_accuracy": 0.0}
        for seed in ("0", "1")
    }
    shown = answers.table(found)
    assert "| SGD |  |  | 0.0 ± 0.0 |  |  | 2 |" in shown
    assert "| SAM | 1 × | 7 | 70.0 ± 14.1 | 80.0 ± 14.1 |" in shown


def test_a_question_without_runs_says_so(ask):
    ask()
    shown = answers.table({"question": "asked", "rows": {}})
    assert "No row was run." in shown
    assert "not run" in shown
    answers.figure({"question": "asked", "rows": {}})
