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
FIRST, SECOND = read("epochs-40"), read("epochs-40-again")
OURS = "Lookbehind-SAM"


def mean(results, label, name="test_accuracy"):
    return 100 * np.mean(differences.values(results, label, name))


def over(results, row, other):
    found = differences.difference(results, row, other)
    assert found is not None
    assert found.n == 10
    return found


def chosen(results, label):
    (params,) = {
        tuple(seed["params"].items())
        for seed in results["rows"][label]["seeds"].values()
    }
    return dict(params)


def test_the_searches_disagree():
    sam, ours = (over(FIRST, label, "SGD") for label in ("SAM", OURS))
    sentence = "SAM is {:.1f} points above SGD and Lookbehind-SAM {:.1f}."
    assert sentence.format(sam.mean, ours.mean) in PAGE
    again, ours = (over(SECOND, label, "SGD") for label in ("SAM", OURS))
    assert f"SAM is {-again.mean:.1f} points *below* SGD, and" in PAGE
    assert f"Lookbehind-SAM is level with it ({ours.mean:+.2f})" in PAGE
    assert max(sam.p, again.p) < 0.001
    assert "of SAM have a p below 0.001" in PAGE
    results = [[mean(it, label) for it in (FIRST, SECOND)] for label in ("SAM", OURS)]
    apart = [abs(first - second) for first, second in results]
    assert f"SAM's own two results differ by {apart[0]:.1f} points" in PAGE
    assert f"and its two results differ by {apart[1]:.1f}." in PAGE
    assert (
        f"SAM ended {sam.mean:.1f} points above SGD in [one search]"
        f"(evidence/searched.md) and {-again.mean:.1f} below it in another"
    ) in text("docs/choose.md")


def test_what_was_chosen():
    params, learned = chosen(SECOND, "SAM"), mean(SECOND, "SAM", "flipped_accuracy")
    assert (
        f"gave SAM {params['epochs']} epochs with ρ = {params['rho']:.2f}, with which "
        f"it learns {learned:.0f} % of the wrong labels"
    ) in PAGE
    assert chosen(FIRST, "SGD")["epochs"] == 12
    assert chosen(SECOND, "SGD")["epochs"] == 6
    assert BEST_SGD.endswith(" 6 epochs")
    assert "gave SGD 12 epochs, where 6 are better" in PAGE
    scale = 0.6 - 0.4 / 9  # a wrong label is one of nine others
    assert f"Two points on clean labels are {2 * scale:.1f} on these" in PAGE
    assert chosen(FIRST, OURS) == chosen(FIRST, "Multistep-SAM")


def test_lookbehind_over_the_others():
    first, second = (over(it, OURS, "SAM").mean for it in (FIRST, SECOND))
    assert f"by {first:.1f} and {second:.1f} points" in PAGE
    noise = over(read("noise-40"), OURS, "SAM").mean
    assert max(noise, second) == second
    for page in ("README.md", "docs/choose.md"):
        assert f"{first:.1f} to {second:.1f} points" in text(page)
    assert over(SECOND, "SAM", "SGD").mean < 0 < over(FIRST, "SAM", "SGD").mean
    assert over(read("noise-40"), "SAM", "SGD").mean > 0
    assert "SGD was above SAM in one of the three" in text("README.md")
    same = over(FIRST, OURS, "Multistep-SAM")
    found = f"{same.mean:.2f} points ({same.low:.2f} to {same.high:.2f})"
    assert f"gave to both: {found}" in PAGE


def test_the_grid():
    grid = read("budget-40")
    ours, sam = (mean(grid, label) for label in (BEST_LOOKBEHIND, BEST_SAM))
    assert ours < sam
    assert f"({ours:.1f} %) is not above SAM's ({sam:.1f})" in PAGE


def test_what_noisy_validation_finds():
    found: dict[int, list[float]] = {}
    for trial in FIRST["rows"]["SGD"]["trials"].values():
        scores = found.setdefault(trial["params"]["epochs"], [])
        scores.append(100 * trial["valid_accuracy"])
    few = [*found[3], *found[6], *found[12]]
    ends = [end(it) for it in (few, found[25], found[50]) for end in (min, max)]
    sentence = (
        "3, 6 and 12 epochs score {:.0f} to {:.0f} %, those of 25 epochs {:.0f} to "
        "{:.0f}, those of 50 {:.0f} to {:.0f}"
    )
    assert sentence.format(*ends) in PAGE
    longest = mean(read("noise-40"), "SGD")
    assert min(mean(it, "SGD") for it in (FIRST, SECOND)) - longest > 6
