"""What tables and pictures say of made-up results."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.evidence import answers
from benchmarks.evidence.questions import QUESTIONS
from tests.benchmarks.evidence.asked import results


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
    runs = {row.label: {"seeds": {"0": {"params": {}}}} for row in rows}
    asked, learned = answers.title({"question": name, "rows": runs}).splitlines()
    assert asked == QUESTIONS[name].about
    assert learned == f"{setting}; n = 1"
    runs[rows[0].label] = {"seeds": {seed: {"params": {}} for seed in "012"}}
    learned = answers.title({"question": name, "rows": runs})
    assert learned.endswith("; n = 1 to 3")


def test_tables_by_hand(ask):
    ask()
    # A difference of 10 and 20 points: t = 3 with one degree of freedom.
    shown = answers.table(results(SGD=[0.5, 0.6], SAM=[0.6, 0.8]))
    p = 1 - 2 * np.arctan(3) / np.pi
    half = stats.t.ppf(0.975, 1) * 5
    interval = f"{15 - half:+.2f} to {15 + half:+.2f}"
    cells = "| SAM | 2 × | 7 | 70.0 ± 14.1 | 80.0 ± 14.1 | 5.0 ± 0.0 | 2 |"
    # One of two rows beside the reference, but the only claim.
    assert f"{cells} +15.00 | {interval} | {2 * p:.2g} |" in shown
    assert "| SGD | 1 × | 7 | 55.0 ± 7.1 | 65.0 ± 7.1 |" in shown
    claim = f"| It pays. | SAM – SGD | +15.00 | {interval} | {p:.2g} | 2 |"
    assert f"{claim} not shown |" in shown
    assert "ASAM" not in shown
    assert shown.endswith(f"\n\n{answers.SPREAD}")
    assert answers.SPREAD not in answers.table(results(SGD=[0.5], SAM=[0.6]))


def test_gradients_are_relative_to_the_mean_of_the_first_row(ask):
    ask()
    found = results(SGD=[0.5, 0.6], SAM=[0.6, 0.8])
    found["rows"]["SGD"]["seeds"]["0"]["gradients"] = 300  # beside one of 100
    shown = answers.table(found)
    assert "| SGD | 1 × |" in shown
    assert "| SAM | 1 × |" in shown


def test_parameters_are_named_as_flags():
    first = {"learning_rate": 0.1234, "k": 2, "alpha": "adaptive"}
    second = {"learning_rate": 0.05, "k": 5, "alpha": "adaptive"}
    shown = "learning-rate 0.12, k 2, alpha adaptive"
    assert answers.parameters([first]) == answers.parameters([first, first]) == shown
    shown = "learning-rate 0.05 to 0.12, k 2 to 5, alpha adaptive"
    assert answers.parameters([first, second]) == shown


def test_the_title_says_how_many_epochs_the_search_chose():
    rows = {
        label: {"seeds": {"0": {"params": {"epochs": epochs}}}}
        for label, epochs in {"SGD": 6, "SAM": 25}.items()
    }
    shown = answers.title({"question": "epochs-40", "rows": rows})
    assert "mlp, 6 to 25 epochs; n = 1" in shown


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
