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


def shown():
    """The cells of the rows of tables, as they are beside the result."""
    lines = Path("benchmarks/results/evidence/budget-40.md").read_text().splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]


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
    assert f"In 6 epochs SGD ends at {sgd:.1f} %; in 50 at {longest:.0f} with" in PAGE
    for page in ("README.md", "docs/choose.md"):
        assert f"{sgd:.1f} %" in text(page)
    choose = text("docs/choose.md")
    assert f"[{sgd:.1f} %](evidence/epochs.md) in 6, chosen by test" in choose
    assert f"after 50 epochs {longest:.0f} at the same rate" in choose
    learned = np.mean(
        [seed["flipped_accuracy"] for seed in FOUND[BEST_SGD]["seeds"].values()]
    )
    assert f"SGD for 6 epochs predicts {100 * learned:.0f} %." in choose
    errors = [seed["test_ece"] for seed in FOUND[BEST_SGD]["seeds"].values()]
    assert f"A cosine over 6 epochs ends at {sgd:.1f} %," in PAGE
    late = text("docs/evidence/late-phases.md")
    assert f"of SGD ({100 * np.mean(errors):.0f} %)" in late
    assert f"SGD for 6 is at {sgd:.1f} %" in text("docs/evidence/noise.md")
    assert f"[trained for 6](epochs.md) it is at {sgd:.1f} %" in text(
        "docs/evidence/range.md"
    )


def test_what_a_climb_adds():
    sgd, best, ours = mean(BEST_SGD), mean(BEST_SAM), mean(BEST_LOOKBEHIND)
    assert f"**A climb adds {best - sgd:.1f} points to that.**" in PAGE
    (claim,) = (it for it in shown() if it[0].startswith("SAM is above SGD, both"))
    low, high = claim[3].split(" to ")
    sentence = "The interval is {:.1f} to {:.1f}, and after Holm's correction p is {}"
    assert sentence.format(float(low), float(high), claim[4]) in PAGE
    assert claim[6] == "not shown"
    half, quarter, eighth = (
        [
            max(
                mean(label)
                for label in FOUND
                if label.startswith(f"{method},")
                and label.endswith(f" {epochs} epochs")
            )
            for method, epochs in (("SAM", of_sam), ("Lookbehind-SAM", of_lookbehind))
        ]
        for of_sam, of_lookbehind in ((12, 8), (6, 4), (3, 2))
    )
    sgd_quarter = max(mean(f"SGD, η = {rate}, 12 epochs") for rate in (0.03, 0.1))
    assert (
        f"ends at {best:.1f} %. For half of that price it is at {half[0]:.1f}," in PAGE
    )
    assert f"for a quarter at {quarter[0]:.1f}, about SGD's {sgd_quarter:.1f}" in PAGE
    assert f"it ends at {ours:.1f} % in 17 epochs" in PAGE
    below = [a - b for a, b in (half, quarter, eighth)]
    sentence = "Lookbehind-SAM is {:.1f}, {:.1f} and {:.1f} points lower"
    assert sentence.format(*below) in PAGE
    choose = text("docs/choose.md")
    assert f"SAM's at {best:.1f} and Lookbehind-SAM's at {ours:.1f}" in choose
    assert f"as much as 50 of SGD, SAM ends at {best:.1f}" in text("README.md")


def test_the_best_cells_without_the_seed_that_chose_them():
    found = [
        100 * (FOUND[BEST_SAM]["seeds"][seed]["test_accuracy"] - row["test_accuracy"])
        for seed, row in FOUND[BEST_SGD]["seeds"].items()
        if seed != "0"
    ]
    assert f"Without it, SAM is {np.mean(found):.1f} points above SGD" in PAGE
    best, low = mean("SGD, η = 0.03, 6 epochs"), mean(BEST_SGD)
    assert best > low
    assert f"SGD's best rate for 6 epochs is 0.03, at {best:.1f} %." in PAGE


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
    at_three = grid("SAM, η = 0.03, kρ = 0.3")
    assert f"{at_three:.0f}" == f"{longest[0.4]:.0f}"
    assert f"{sentence} and 0.3 or 0.4 in 50 ([{at_three:.0f}](range.md)," in PAGE
    assert f"it ends at {longest[0.1]:.0f} % with ρ = 0.1" in PAGE
    assert f"in 12 epochs it ends at {sam(0.4, 12):.1f} % with ρ = 0.4" in PAGE
    none = mean("SGD, η = 0.03, 6 epochs")
    assert none > sam(0.1, 6)
    assert f"SGD, {none:.1f} % at this rate) than 0.1 ({sam(0.1, 6):.1f})" in PAGE


def test_noisy_validation_sees_the_fall():
    trials = rows("noise-40")["SGD"]["trials"].values()
    best = [100 * trial["best_valid_accuracy"] for trial in trials]
    last = [100 * trial["valid_accuracy"] for trial in trials]
    sentence = "{:.0f} to {:.0f} % at the best epoch and {:.0f} to {:.0f} % at the last"
    assert sentence.format(min(best), max(best), min(last), max(last)) in PAGE


def test_what_noisy_validation_cannot_see():
    # A wrong label is one of nine others, so a right answer is right for 60 %.
    scale = 0.6 - 0.4 / 9
    ends = [mean(f"SGD, η = 0.1, {epochs} epochs") for epochs in (3, 6, 12)]
    fall = scale * (ends[1] - np.mean([ends[0], ends[2]]))
    assert f"of SGD are about {fall:.1f} points above 3 and 12, and" in PAGE
    error = 100 * np.sqrt(0.5 * 0.5 / 1000)
    assert f"the standard error of one score is {error:.1f}." in PAGE
