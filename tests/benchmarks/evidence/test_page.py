"""The numbers on the page that helps to choose are those of the results."""

import json
from pathlib import Path

import numpy as np
import pytest

PAGE = " ".join(Path("docs/choose.md").read_text().split())
RESULT = json.loads(Path("benchmarks/results/evidence/price-40.json").read_text())


def mean(label, name="test_accuracy"):
    return 100 * np.mean([it[name] for it in RESULT["rows"][label]["seeds"].values()])


FACTS = {
    "SGD {:.0f} → SAM {:.0f}, Lookbehind {:.0f}": ["SGD", "SAM", "Lookbehind-SAM"],
    "{:.0f} % with SAM in the last 20 or 30 %": ["SAM, late, own anneal, 0.2"],
    "{:.0f} % with SAM in the last 20 or 30 % |": ["SAM, late, own anneal, 0.3"],
    "twice or three times as long is worse: {:.0f} % for both": ["SGD, 2 × the epochs"],
    "three times as long is worse: {:.0f} % for both": ["SGD, 3 × the epochs"],
    "don't ({:.0f}, {:.0f} and {:.0f} %)": [
        "SAM, late, one anneal, 0.3",
        "SAM, early, 0.3",
        "SAM, spread evenly, 0.3",
    ],
    "SGD with one is at {:.0f} %": ["SGD, two anneals"],
}


@pytest.mark.parametrize("sentence", FACTS)
def test_accuracies(sentence):
    assert sentence.format(*map(mean, FACTS[sentence])) in PAGE


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        (
            "SGD predicts {:.0f} % of the wrong labels, SAM {:.0f} %",
            "flipped_accuracy",
        ),
        ("a calibration error of {:.0f} % for SGD, {:.0f} % for SAM", "test_ece"),
    ],
)
def test_sgd_and_sam(sentence, name):
    assert sentence.format(mean("SGD", name), mean("SAM", name)) in PAGE


def test_early_stopping():
    best = [mean(label, "best_test_accuracy") for label in ("SGD", "SAM")]
    best.append(mean("Lookbehind-SAM", "best_test_accuracy"))
    sentence = "SGD reaches {:.0f} %, SAM {:.0f} % and Lookbehind-SAM {:.0f} %"
    assert sentence.format(*best) in PAGE


def test_the_share_of_the_gain_that_a_late_phase_keeps():
    sgd, whole = mean("SGD"), mean("Lookbehind-SAM")
    share = 100 * (mean("SAM, late, own anneal, 0.3") - sgd) / (whole - sgd)
    assert f"keep {share:.0f} % of Lookbehind's gain" in PAGE


TUNED = json.loads(Path("benchmarks/results/evidence/noise-40.json").read_text())


def test_with_searched_rates():
    sgd, sam = (
        100 * np.mean([seed["test_accuracy"] for seed in row["seeds"].values()])
        for row in (TUNED["rows"]["SGD"], TUNED["rows"]["SAM"])
    )
    assert f"SGD is at {sgd:.0f} and SAM at {sam:.0f}" in PAGE
    readme = " ".join(Path("README.md").read_text().split())
    assert f"the gap is smaller: SGD {sgd:.0f}, SAM {sam:.0f}" in readme


def test_how_often_a_short_phase_fails():
    runs = RESULT["rows"]["SAM, late, own anneal, 0.1"]["seeds"].values()
    assert sum(run["test_accuracy"] < 0.5 for run in runs) == 2
    assert "ended two of five runs of the last 10 % below 50 %" in PAGE


def test_how_many_seeds():
    fewest = min(len(row["seeds"]) for row in RESULT["rows"].values())
    assert f"{fewest} or more seeds each" in PAGE
