"""The numbers of the page on searched numbers of epochs are those of the results."""

import json
from pathlib import Path

import numpy as np

from benchmarks.evidence import differences
from benchmarks.evidence.budget import BEST_LOOKBEHIND
from benchmarks.evidence.budget import BEST_SAM
from benchmarks.evidence.budget import BEST_SGD


def text(path):
    return " ".join(Path(path).read_text().split())


def read(name):
    return json.loads(Path(f"benchmarks/results/evidence/{name}.json").read_text())


PAGE = text("docs/evidence/searched.md")
FOUND = read("epochs-40")


def mean(results, label, name="test_accuracy"):
    return 100 * np.mean(differences.values(results, label, name))


def scores(label):
    """Of the trials: validation accuracies in percent by number of epochs."""
    by_epochs = {}
    for trial in FOUND["rows"][label]["trials"].values():
        found = by_epochs.setdefault(trial["params"]["epochs"], [])
        found.append(100 * trial["valid_accuracy"])
    return by_epochs


def test_what_a_climb_adds():
    sam, lookbehind = (
        differences.difference(FOUND, label, "SGD")
        for label in ("SAM", "Lookbehind-SAM")
    )
    over = differences.difference(FOUND, "Lookbehind-SAM", "SAM")
    assert sam is not None
    assert lookbehind is not None
    assert over is not None
    sentence = "SAM is {:.1f} points above SGD, Lookbehind-SAM {:.1f}"
    assert sentence.format(sam.mean, lookbehind.mean) in PAGE
    assert f"Lookbehind-SAM is {over.mean:.1f} points above SAM" in PAGE


def test_the_grid_has_better_cells():
    grid = read("budget-40")
    best = [mean(grid, label) for label in (BEST_SGD, BEST_SAM, BEST_LOOKBEHIND)]
    sentence = "SGD at {:.1f} %, SAM at {:.1f}, Lookbehind-SAM at {:.1f}"
    assert sentence.format(*best) in PAGE
    for accuracy, label in zip(best, ("SGD", "SAM", "Lookbehind-SAM"), strict=True):
        assert accuracy > mean(FOUND, label)


def test_two_trials_of_sam_have_the_best_score():
    trials = [
        trial["valid_accuracy"] for trial in FOUND["rows"]["SAM"]["trials"].values()
    ]
    assert trials.count(max(trials)) == 2
    learned = mean(FOUND, "SAM", "flipped_accuracy")
    assert f"its network learns {learned:.0f} % of the wrong labels" in PAGE


def test_what_noisy_validation_finds():
    found = scores("SGD")
    few = [*found[3], *found[6], *found[12]]
    ends = [f(it) for it in (few, found[25], found[50]) for f in (min, max)]
    sentence = (
        "3, 6 and 12 epochs score {:.0f} to {:.0f} %, those of 25 epochs {:.0f} to "
        "{:.0f}, those of 50 {:.0f} to {:.0f}"
    )
    assert sentence.format(*ends) in PAGE
    chosen = {
        seed["params"]["epochs"] for seed in FOUND["rows"]["SGD"]["seeds"].values()
    }
    assert chosen == {12}
    assert "it took 12 epochs, while the grid's best is 6" in PAGE
    assert BEST_SGD.endswith(" 6 epochs")
