"""The numbers of the page on the number of epochs are those of the results."""

import json
from pathlib import Path

import numpy as np

from benchmarks.evidence.budget import BEST_LOOKBEHIND
from benchmarks.evidence.budget import BEST_SAM
from benchmarks.evidence.budget import BEST_SGD


def text(path):
    return " ".join(Path(path).read_text().split())


def rows(name):
    path = Path(f"benchmarks/results/evidence/{name}.json")
    return json.loads(path.read_text())["rows"]


PAGE = text("docs/evidence/epochs.md")
FOUND = rows("budget-40")


def mean(label):
    seeds = FOUND[label]["seeds"].values()
    return 100 * np.mean([seed["test_accuracy"] for seed in seeds])


def sam(rho, epochs):
    return mean(f"SAM, η = 0.03, ρ = {rho}, {epochs} epochs")


def grid(label):
    return 100 * rows("rates")[label]["seeds"]["0"]["test_accuracy"]


def test_every_row_has_the_same_seeds():
    assert len({tuple(row["seeds"]) for row in FOUND.values()}) == 1


def test_the_best_cells_are_those_of_the_first_seed():
    for label in (BEST_SGD, BEST_SAM, BEST_LOOKBEHIND):
        method = label.split(",")[0]
        first = {
            other: row["seeds"]["0"]["test_accuracy"]
            for other, row in FOUND.items()
            if other.split(",")[0] == method
        }
        assert max(first, key=lambda other: first[other]) == label


def test_what_the_number_of_epochs_gives():
    sgd, longest = mean(BEST_SGD), mean("SGD, η = 0.1, 50 epochs")
    assert f"In 6 epochs SGD ends at {sgd:.1f} %, in 50 at {longest:.0f}." in PAGE
    for page in ("README.md", "docs/choose.md"):
        assert f"{sgd:.1f} %" in text(page)
    assert f"[{sgd:.0f} %](evidence/epochs.md); {longest:.0f} after 50" in text(
        "docs/choose.md"
    )
    assert f"SGD for 6 is at {sgd:.0f} %" in text("docs/evidence/noise.md")
    assert f"[trained for 6](epochs.md) it is at {sgd:.0f} %" in text(
        "docs/evidence/range.md"
    )


def test_what_a_climb_adds():
    sgd, best, ours = mean(BEST_SGD), mean(BEST_SAM), mean(BEST_LOOKBEHIND)
    assert f"**A climb adds {best - sgd:.1f} points to that.**" in PAGE
    half = max(mean(it) for it in FOUND if it.startswith("SAM") and ", 12 " in it)
    quarter = max(mean(it) for it in FOUND if it.startswith("SAM") and ", 6 " in it)
    assert quarter < sgd
    sentence = f"ends at {best:.1f} %. For half of that price it is at {half:.1f}, for"
    assert sentence in PAGE
    assert f"{ours:.1f} % for Lookbehind-SAM in 17 epochs" in PAGE
    assert f"SAM's at {best:.1f} and Lookbehind-SAM's at {ours:.1f}" in text(
        "docs/choose.md"
    )
    assert f"at SGD's price for 50, at {best:.1f}" in text("README.md")


def test_the_radius_that_fits_the_number_of_epochs():
    radii = (0.1, 0.2, 0.4)
    longest = {rho: grid(f"SAM, η = 0.03, kρ = {rho}") for rho in radii}
    found = [{rho: sam(rho, epochs) for rho in radii} for epochs in (12, 25)]
    for (rho, best), accuracies in zip(
        ((0.1, 12), (0.2, 25), (0.4, 50)), (*found, longest), strict=True
    ):
        assert max(accuracies, key=lambda it: accuracies[it]) == rho, best
    sentence = (
        f"ρ = 0.1 in 12 epochs ({sam(0.1, 12):.1f} %), 0.2 in 25 ({sam(0.2, 25):.1f})"
    )
    assert f"{sentence} and 0.4 in 50 ([{longest[0.4]:.0f}](range.md))" in PAGE
    assert f"it ends at {longest[0.1]:.0f} % with ρ = 0.1" in PAGE
    assert f"in 12 epochs it ends at {sam(0.4, 12):.1f} % with ρ = 0.4" in PAGE


def test_noisy_validation_sees_the_fall():
    trials = rows("noise-40")["SGD"]["trials"].values()
    best = [100 * trial["best_valid_accuracy"] for trial in trials]
    last = [100 * trial["valid_accuracy"] for trial in trials]
    sentence = "{:.0f} to {:.0f} % at the best epoch and {:.0f} to {:.0f} % at the last"
    assert sentence.format(min(best), max(best), min(last), max(last)) in PAGE
