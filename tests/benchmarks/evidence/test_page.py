"""The numbers on the pages are those of the results."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence import differences
from benchmarks.evidence.radius import BEST as BEST_CELLS

PAGE = " ".join(Path("docs/choose.md").read_text().split())
README = " ".join(Path("README.md").read_text().split())
RESULT = json.loads(Path("benchmarks/results/evidence/price-40.json").read_text())


def mean(label, name="test_accuracy"):
    return 100 * np.mean([it[name] for it in RESULT["rows"][label]["seeds"].values()])


FACTS = {
    "{:.0f} % with SAM in the last 20 or 30 %": ["SAM, late, own anneal, 0.2"],
    "{:.0f} % with SAM in the last 20 or 30 %, SGD [{:.0f}]": [
        "SAM, late, own anneal, 0.3",
        "SGD",
    ],
    "{:.0f} % (the last ones), {:.0f} % (the first) or {:.0f} % (spread evenly)": [
        "SAM, late, one anneal, 0.3",
        "SAM, early, 0.3",
        "SAM, spread evenly, 0.3",
    ],
    "A second anneal without a climb gives SGD {:.0f} %": ["SGD, two anneals"],
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


def test_the_share_of_the_gain_that_a_late_phase_keeps():
    sgd, whole = mean("SGD"), mean("Lookbehind-SAM")
    share = 100 * (mean("SAM, late, own anneal, 0.3") - sgd) / (whole - sgd)
    assert f"keeps {share:.0f} % of the gain that Lookbehind has" in PAGE


LATE = " ".join(Path("docs/evidence/late-phases.md").read_text().split())


def test_what_the_end_its_anneal_and_its_climbs_give():
    sgd, two = mean("SGD"), mean("SGD, two anneals")
    early = mean("SAM, early, two anneals, 0.3")
    own, one = (
        [mean(f"SAM, late, {anneal}, {share}") - sgd for share in (0.2, 0.3)]
        for anneal in ("own anneal", "one anneal")
    )
    assert (
        "climbs with their own anneal gain {:.0f} to {:.0f} points".format(*own) in LATE
    )
    assert f"without climbs {two - sgd:.0f} points, without the second" in LATE
    assert "without the second anneal {:.0f} to {:.0f}, in".format(*one) in LATE
    sentence = f"in the first 30 % instead of the last {early - sgd:.0f}."
    assert sentence in LATE
    assert f"early climbs at {mean('SAM, early, 0.3'):.1f}." in LATE
    assert f"with a climb (SAM {mean('SAM', 'test_ece'):.0f} %)" in LATE
    late, spread = (
        [mean(f"SAM, {way}, {share}") for share in (0.1, 0.2, 0.3, 0.5)]
        for way in ("late, one anneal", "spread evenly")
    )
    assert max(abs(a - b) for a, b in zip(late, spread, strict=True)) < 1
    assert f"{late[2]:.1f} and {spread[2]:.1f} % for 30 %" in LATE


TUNED = json.loads(Path("benchmarks/results/evidence/noise-40.json").read_text())
SEARCHED = " ".join(Path("docs/evidence/noise.md").read_text().split())


def searched(label, name="test_accuracy"):
    seeds = TUNED["rows"][label]["seeds"].values()
    return 100 * np.array([seed[name] for seed in seeds])


def read_all(name):
    return json.loads(Path(f"benchmarks/results/evidence/{name}.json").read_text())


def read(name):
    return {label: row["seeds"] for label, row in read_all(name)["rows"].items()}


GRID, BEST = read("rates"), read("rates-best")
RANGE = " ".join(Path("docs/evidence/range.md").read_text().split())


def best_of_grid(label):
    return 100 * np.array([seed["test_accuracy"] for seed in BEST[label].values()])


def test_with_the_best_rate_and_radius():
    sgd = searched("SGD").mean()
    sam, lookbehind = best_of_grid("SAM").mean(), best_of_grid("Lookbehind-SAM").mean()
    assert f"{sam:.0f}" == f"{lookbehind:.0f}"
    assert f"{sam:.0f} % for both, in [50 epochs]" in PAGE
    assert f"where SGD at its best rate ends at {sgd:.0f};" in PAGE
    assert f"ends after 50 epochs at [{sgd:.0f} %](docs/evidence/noise.md)" in README
    assert f"with SGD, and at {sam:.0f} with SAM and with Lookbehind-SAM" in README
    ends = mean("SGD"), mean("SAM, late, own anneal, 0.3")
    assert "takes SGD [from {:.0f} to {:.0f} %]".format(*ends) in README


def test_ten_random_trials_beside_the_grid():
    sam, lookbehind = searched("SAM").mean(), searched("Lookbehind-SAM").mean()
    best, same = best_of_grid("SAM").mean(), best_of_grid("Lookbehind-SAM").mean()
    assert lookbehind - sam > 2
    assert abs(same - best) < 0.1
    assert "level at the best of a [grid](docs/evidence/range.md)" in README


def accuracies(method):
    """Of a method's cells, in percent, by the first seed."""
    return {
        label: 100 * seeds["0"]["test_accuracy"]
        for label, seeds in GRID.items()
        if label.startswith(f"{method}, ")
    }


def test_how_wide_the_good_range_is():
    grid = [accuracies(it) for it in ("Lookbehind-SAM", "SAM", "Multistep-SAM")]
    assert [len(cells) for cells in grid] == [25, 25, 25]
    near = [sum(a > max(it.values()) - 1 for a in it.values()) for it in grid]
    sentence = "{} of 25 cells within a point of its best, SAM's {} and Multistep-SAM's"
    assert f"{sentence} {{}}.".format(*near) in RANGE
    aligned = [
        sum(
            a > max(it.values()) - 1
            for n, a in it.items()
            if f"η = {left_out}," not in n
        )
        for it, left_out in zip(grid, ("0.015", "0.24"), strict=False)
    ]
    assert "SAM's highest, it is {} cells to {}.".format(*aligned) in RANGE
    found = accuracies("SGD")
    sgd = max(found.values())
    ours, sam, multistep = (sum(a < sgd for a in it.values()) for it in grid)
    sentence = f"Below its best cell are {sam}, {multistep} and {ours}."
    assert sentence in RANGE
    ours, sam, multistep = (
        sum(a < found[f"SGD, {n.split(', ')[1]}"] for n, a in it.items()) for it in grid
    )
    sentence = f"{sam} of SAM's 25 cells, {multistep} of Multistep-SAM's and {ours} of"
    assert sentence in RANGE
    best_radius = [
        max(
            (0.1, 0.2, 0.3, 0.4, 0.6),
            key=lambda reach, eta=eta: grid[1][f"SAM, η = {eta}, kρ = {reach}"],
        )
        for eta in (0.015, 0.06)
    ]
    sentence = "SAM's best radius rises from {} at a rate of 0.015 to {} at 0.06"
    assert sentence.format(*best_radius) in RANGE
    stopped = [
        100 * GRID[f"SGD, η = {eta}"]["0"]["best_test_accuracy"]
        for eta in ("0.015", "0.03")
    ]
    assert [f"{it:.0f}" for it in stopped] == ["82", "82"]
    for page in (RANGE, SEARCHED):
        assert "best epoch is at 82 %" in page
    lower = accuracies("SGD")["SGD, η = 0.12"]
    assert f"ends at {sgd:.0f} % with 0.24, at {lower:.0f} % with 0.12" in RANGE
    best = [max(a for n, a in it.items() if "η = 0.12," in n) for it in grid]
    sentence = (
        "rate of 0.12 Lookbehind's best is {:.1f} %, SAM's {:.1f} and Multistep-SAM's"
    )
    assert f"{sentence} {{:.1f}}".format(*best) in RANGE


@pytest.mark.parametrize(
    ("name", "label", "setting"),
    [
        ("budget-40", "SGD, η = 0.1, 6 epochs", "SGD | 6 | 0.1 | |"),
        ("budget-40", "SAM, η = 0.03, ρ = 0.2, 25 epochs", "SAM | 25 | 0.03 | 0.2 |"),
        ("rates-best", "SAM", "SAM | 50 | 0.015 | 0.2 |"),
        ("rates", "SAM, η = 0.03, kρ = 0.4", "SAM | 50 | 0.03 | 0.4 |"),
        (
            "budget-40",
            "Lookbehind-SAM, η = 0.03, ρ = 0.1, 17 epochs",
            "Lookbehind-SAM, α = 0.5 | 17 | 0.03 | 0.1 |",
        ),
        (
            "rates",
            "Lookbehind-SAM, η = 0.03, kρ = 0.3",
            "Lookbehind-SAM, α = 0.2 | 50 | 0.03 | 0.15 |",
        ),
        ("rates-best", "Lookbehind-SAM", "Lookbehind-SAM, α = 0.2 | 50 | 0.06 | 0.2 |"),
    ],
)
def test_rates_and_radii(name, label, setting):
    found = differences.values(read_all(name), label, "test_accuracy")
    page = "epochs" if name == "budget-40" else "range"
    accuracy = f"[{100 * found.mean():.1f}](evidence/{page}.md)"
    assert f"| {setting} {accuracy} | {len(found)} |" in PAGE


def test_the_best_cells():
    for method, (eta, reach) in BEST_CELLS.items():
        cells = accuracies(method)
        assert max(cells, key=lambda label: cells[label]) == (
            f"{method}, η = {eta:g}, kρ = {reach:g}"
        )
    rate, reach = BEST_CELLS["SAM"]
    assert f"lb.sam(base({rate:g}), rho={reach:g})" in PAGE
    rate, reach = BEST_CELLS["Lookbehind-SAM"]
    assert f"lb.lookbehind_sam(base({rate:g}), rho={reach / 2:g}, k=2" in PAGE
    assert set(BEST) == {"SGD", *BEST_CELLS}
    sgd = accuracies("SGD")
    assert max(sgd, key=lambda label: sgd[label]) == "SGD, η = 0.24"
    over = best_of_grid("Lookbehind-SAM") - best_of_grid("SAM")
    assert len(over) == 10
    climb = best_of_grid("SAM") - best_of_grid("SGD")
    assert f"In 50 epochs, a climb is worth {climb.mean():.0f} points" in RANGE
    best = searched("SGD").mean()
    over_best = best_of_grid("SAM").mean() - best
    assert f"and {over_best:.0f} over the {best:.0f} % of SGD at the rate" in RANGE
    found = differences.difference(read_all("rates-best"), "Lookbehind-SAM", "SAM")
    assert found is not None
    interval = f"(95 %: {found.low:.2f} to {found.high:+.2f})"
    assert f"With ten seeds it is {over.mean():.2f} points above {interval}" in RANGE
    learned = [
        100 * np.mean([seed["flipped_accuracy"] for seed in BEST[label].values()])
        for label in ("SGD", "SAM")
    ]
    assert "at the best of the grid, {:.0f} and {:.0f} %.".format(*learned) in PAGE
    multistep = best_of_grid("Lookbehind-SAM") - best_of_grid("Multistep-SAM")
    assert len(multistep) == 10
    sentence = f"{multistep.mean():+.2f} points on average over ten seeds"
    assert sentence in RANGE


def test_differences_with_searched_hyperparameters():
    sgd, sam, lookbehind, pullback = map(
        searched, ("SGD", "SAM", "Lookbehind-SAM", "Lookbehind-SAM, pullback")
    )
    assert len(sgd) == len(sam) == len(lookbehind) == len(pullback) == 10
    assert f"worth {(sam - sgd).mean():.1f} points**, from SGD to SAM" in SEARCHED
    over = lookbehind - sam
    assert f"{over.mean():.1f} points above SAM**, on every seed" in SEARCHED
    assert over.min() > 0
    found = differences.difference(TUNED, "Lookbehind-SAM, pullback", "Lookbehind-SAM")
    assert found is not None
    sentence = f"α = 0.2: {abs(found.mean):.2f} points ({found.low:.2f} to"
    assert f"{sentence} {found.high:.2f})" in SEARCHED
    assert (pullback - lookbehind).mean() == pytest.approx(found.mean)
    ours, pulled = (
        TUNED["rows"][label]["trials"]
        for label in ("Lookbehind-SAM", "Lookbehind-SAM, pullback")
    )
    lower = sorted(
        100 * (trial["valid_accuracy"] - pulled[number]["valid_accuracy"])
        for number, trial in ours.items()
        if trial["params"]["learning_rate"] > 0.09
    )
    sentence = "rates above 0.09 pullback scored {:.1f} to {:.1f} points lower"
    assert sentence.format(lower[0], lower[-1]) in SEARCHED
    assert not any("failed" in trial for trial in ours.values())
    trials = TUNED["rows"]["SAM"]["trials"].values()
    radii = sorted(trial["params"]["rho"] for trial in trials)
    gap = f"a ρ between {radii[-3]:.2f} and {radii[-2]:.2f}, and only one a rate below"
    assert gap in SEARCHED
    assert sum(trial["params"]["learning_rate"] < 0.04 for trial in trials) == 1
    multistep, longer = map(searched, ("Multistep-SAM", "SGD, 2 × the epochs"))
    assert len(multistep) == len(longer) == 10
    below = (lookbehind - multistep).mean()
    sentence = f"at {multistep.mean():.1f} %, {below:.1f} points below Lookbehind-SAM"
    assert sentence in SEARCHED
    assert f"SGD for twice as long is at {longer.mean():.0f} %" in SEARCHED


def test_what_is_memorized_with_searched_hyperparameters():
    sgd, sam, lookbehind = (
        searched(label, "flipped_accuracy").mean()
        for label in ("SGD", "SAM", "Lookbehind-SAM")
    )
    best = [
        searched(it, "best_test_accuracy").mean()
        for it in ("SGD", "SAM", "Lookbehind-SAM")
    ]
    sentence = "SGD is at {:.0f} %, SAM at {:.0f} % and Lookbehind-SAM at {:.0f} %"
    assert sentence.format(*best) in SEARCHED
    before = mean("SGD", "flipped_accuracy")
    sentence = f"{sgd:.0f} % of the wrong labels instead of {before:.0f} %"
    assert sentence in SEARCHED
    sentence = f"{lookbehind:.0f} % of the wrong labels to SAM's {sam:.0f} %"
    assert sentence in SEARCHED
    errors = [
        searched(it, "test_ece").mean() for it in ("Lookbehind-SAM", "SAM", "SGD")
    ]
    sentence = "{:.0f} % for Lookbehind-SAM, {:.0f} % for SAM, {:.0f} % for SGD"
    assert sentence.format(*errors) in SEARCHED


def test_how_often_a_short_phase_fails():
    runs = RESULT["rows"]["SAM, late, own anneal, 0.1"]["seeds"].values()
    assert sum(run["test_accuracy"] < 0.5 for run in runs) == 2
    assert "ended two of five runs of the last 10 % below 50 %" in PAGE


def test_how_many_seeds():
    fewest = min(len(row["seeds"]) for row in RESULT["rows"].values())
    assert f"{fewest} or more seeds each" in PAGE
