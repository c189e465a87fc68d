"""The numbers of the page on the vision transformer are those of the results."""

import json
from pathlib import Path

import numpy as np

from benchmarks.evidence import differences

PAGE = " ".join(Path("docs/evidence/vit.md").read_text().split())
RESULTS = json.loads(Path("benchmarks/results/evidence/vit.json").read_text())
ADAMW, SAM = (RESULTS["rows"][label] for label in ("AdamW", "SAM"))


def mean(row, name):
    return 100 * np.mean([seed[name] for seed in row["seeds"].values()])


def test_the_difference_and_its_interval():
    over = differences.difference(RESULTS, "SAM", "AdamW")
    assert over is not None
    assert over.n == 3
    assert f"it is {-over.mean:.1f} points lower on average over three seeds" in PAGE
    assert f"an interval from {over.low:.1f} to {over.high:+.1f}." in PAGE


def test_calibration():
    errors = mean(SAM, "test_ece"), mean(ADAMW, "test_ece")
    assert "its error is {:.1f} %, AdamW's {:.1f}.".format(*errors) in PAGE
    found = {
        f"{trial['params']['rho']:.2f}": 100 * trial["valid_ece"]
        for trial in SAM["trials"].values()
    }
    sentence = "with ρ of 0.12 and 0.07, SAM has an error of {:.0f} and {:.0f} %"
    assert sentence.format(found["0.12"], found["0.07"]) in PAGE
    lowest = min(100 * trial["valid_ece"] for trial in ADAMW["trials"].values())
    assert f"AdamW's lowest error there is {lowest:.0f} %" in PAGE


def test_what_the_trials_choose():
    found = sorted(100 * trial["valid_accuracy"] for trial in SAM["trials"].values())
    error = 100 * np.sqrt(0.47 * 0.53 / 1000)
    assert f"a standard error of {error:.1f} points" in PAGE
    assert sum(it > found[-1] - error for it in found[:-1]) == 3
    assert "three other trials of SAM are as good as its best" in PAGE
    rates = sorted(
        trial["params"]["learning_rate"] for trial in ADAMW["trials"].values()
    )
    lowest, *_, second, highest = (f"{rate:.4f}" for rate in rates)
    assert f"between {lowest} and {second}, the sixth is {highest}" in PAGE
    gains = [
        100 * (trial["valid_accuracy"] - ADAMW["trials"][number]["valid_accuracy"])
        for number, trial in SAM["trials"].items()
    ]
    above = sorted(gain for gain in gains if gain > 0)
    sentence = "above AdamW in four of the six trials, by {:.1f} to {:.1f} points"
    assert len(above) == 4
    assert sentence.format(above[0], above[-1]) in PAGE
    best = max(ADAMW["trials"].values(), key=lambda trial: trial["valid_accuracy"])
    assert best["params"]["learning_rate"] == rates[0]


def test_accuracies():
    for row in (SAM, ADAMW):
        fall = mean(row, "best_test_accuracy") - mean(row, "test_accuracy")
        assert f"best epochs are {fall:.1f} points above" in PAGE
    found = mean(ADAMW, "test_accuracy"), mean(SAM, "test_accuracy")
    choose = " ".join(Path("docs/choose.md").read_text().split())
    assert "AdamW {:.1f}, SAM {:.1f} with".format(*found) in choose
