"""The numbers of the page on searched numbers of epochs are those of the results."""

import json
from pathlib import Path

import numpy as np

from benchmarks.evidence import answers
from benchmarks.evidence import differences
from benchmarks.evidence.budget import BEST_LOOKBEHIND
from benchmarks.evidence.budget import BEST_SAM
from benchmarks.evidence.questions import QUESTIONS


def text(path):
    return " ".join(Path(path).read_text().split())


def read(name):
    return json.loads(Path(f"benchmarks/results/evidence/{name}.json").read_text())


PAGE = text("docs/evidence/searched.md")
FIRST, SECOND = read("epochs-40"), read("epochs-40-again")
TEN, CLEAN = read("searches-40"), read("searches-40-clean")
OURS = "Lookbehind-SAM"


def mean(results, label, name="test_accuracy"):
    return 100 * np.mean(differences.values(results, label, name))


def over(results, row, other):
    found = differences.difference(results, row, other)
    assert found is not None
    assert found.n == 10
    return found


def claims(name, results):
    """The cells of the rows of the table of claims."""
    table = answers.claims_table(QUESTIONS[name], results).splitlines()
    return [line.strip("| ").split(" | ") for line in table[2:]]


def chosen(results, label):
    (params,) = {
        tuple(seed["params"].items())
        for seed in results["rows"][label]["seeds"].values()
    }
    return dict(params)


def test_ten_searches():
    ours, adds, sam = (
        over(TEN, *rows) for rows in ((OURS, "SGD"), (OURS, "SAM"), ("SAM", "SGD"))
    )
    intervals = [f"({it.low:.1f} to {it.high:.1f})" for it in (ours, adds, sam)]
    assert (
        f"ends {ours.mean:.1f} points above SGD on average {intervals[0]} and "
        f"{adds.mean:.1f} above SAM {intervals[1]}. SAM's difference to SGD is "
        f"{sam.mean:.1f} {intervals[2]}."
    ) in PAGE
    assert [claim[-1] for claim in claims("searches-40", TEN)] == ["not shown"] * 4
    for page in ("README.md", "docs/choose.md"):
        assert f"{adds.mean:+.1f} points ({adds.low:.1f} to {adds.high:.1f})" in text(
            page
        )
    sentence = "SGD ends at {:.1f} % on average, SAM at {:.1f} and Lookbehind-SAM at"
    methods = ("SGD", "SAM", OURS)
    means = [mean(TEN, label) for label in methods]
    assert f"{sentence} {{:.1f}}".format(*means) in text("README.md")
    choose = text("docs/choose.md")
    for labels, results in (("noisy", TEN), ("clean", CLEAN)):
        row = f"| [{labels} validation labels](evidence/searched.md) | {{:.1f}} | "
        row += "{:.1f} | {:.1f} | {:.1f} |"
        four = [mean(results, label) for label in (*methods, "Multistep-SAM")]
        assert row.format(*four) in choose
    found = 100 * differences.values(TEN, "SAM", "test_accuracy")
    sentence = f"from {found.min():.0f} to {found.max():.0f} %"
    assert f"led SAM to accuracies {sentence}" in text("docs/evidence/noise.md")


def test_what_goes_wrong():
    bad = {
        label: [
            seed
            for seed in TEN["rows"][label]["seeds"].values()
            if seed["test_accuracy"] < 0.82
        ]
        for label in ("SGD", "SAM", OURS)
    }
    assert not bad["SGD"]
    found = [*bad["SAM"], *bad[OURS]]
    numbers = ("no", "one", "two", "three", "four", "five")
    counts = [numbers[len(it)] for it in (found, bad["SAM"], bad[OURS])]
    sentence = "In the {} searches that end below 82 %, {} of SAM and {} of Lookbehind"
    assert sentence.format(*counts) in PAGE
    sentence = "{} of the twenty searches of SAM and Lookbehind-SAM ended below 82 %"
    assert sentence.format(counts[0]) in text("docs/choose.md")
    assert {seed["params"]["epochs"] for seed in bad["SAM"]} == {25}
    assert {seed["params"]["epochs"] for seed in bad[OURS]} == {17}
    learned = sorted(100 * seed["flipped_accuracy"] for seed in found)
    assert f"learns {learned[0]:.0f} to {learned[-1]:.0f} % of the wrong labels" in PAGE
    others = [
        100 * seed["flipped_accuracy"]
        for row in TEN["rows"].values()
        for seed in row["seeds"].values()
        if seed["test_accuracy"] >= 0.82
    ]
    assert max(others) < learned[0]
    scale = 0.6 - 0.4 / 9  # a wrong label is one of nine others
    assert f"Two points on clean labels are {2 * scale:.1f} on noisy ones" in PAGE


def test_a_rate_too_high_for_its_radius():
    params = [
        (seed["params"], seed["test_accuracy"])
        for label in ("SAM", OURS)
        for seed in TEN["rows"][label]["seeds"].values()
    ]
    rates = [it["learning_rate"] for it, accuracy in params if accuracy < 0.82]
    assert f"its radius ({min(rates):.2f} to {max(rates):.2f}; SAM ends" in PAGE
    slow = [
        100 * accuracy
        for it, accuracy in params
        if it["epochs"] == 25 and round(it["learning_rate"], 2) == 0.02
    ]
    sentence = f"SAM ends at {min(slow):.1f} to {max(slow):.1f} % with a rate of 0.02"
    assert sentence in PAGE


def test_sgd_is_easy_to_search():
    seeds = TEN["rows"]["SGD"]["seeds"].values()
    assert sum(seed["params"]["epochs"] == 6 for seed in seeds) == 9
    assert "in nine of ten searches it gets 6 epochs" in PAGE
    scatter = [
        np.std(differences.values(TEN, label, "test_accuracy"), ddof=1)
        for label in ("SGD", "SAM", OURS)
    ]
    assert min(scatter) == scatter[0]
    assert "scatter less than SAM's and Lookbehind-SAM's" in PAGE


def test_the_searches_disagree():
    sam, ours = (over(FIRST, label, "SGD") for label in ("SAM", OURS))
    sentence = "SAM is {:.1f} points above SGD and Lookbehind-SAM {:.1f};"
    assert sentence.format(sam.mean, ours.mean) in PAGE
    again, ours = (over(SECOND, label, "SGD") for label in ("SAM", OURS))
    assert f"SAM is {-again.mean:.1f} points *below* SGD and" in PAGE
    assert f"Lookbehind-SAM level with it ({ours.mean:+.2f})" in PAGE
    assert max(sam.p, again.p) < 0.001
    assert "though both have p-values below 0.001" in PAGE


def test_multistep_sam():
    assert chosen(FIRST, OURS) == chosen(FIRST, "Multistep-SAM")
    same = over(FIRST, OURS, "Multistep-SAM")
    found = f"{same.mean:.2f} points ({same.low:.2f} to {same.high:.2f})"
    assert f"gave to both, they are level: {found}" in PAGE
    best, ours = over(TEN, "Multistep-SAM", "SGD"), over(TEN, OURS, "Multistep-SAM")
    said = f"{best.mean:.1f} points above SGD ({best.low:.1f} to {best.high:.1f})"
    accuracy = mean(TEN, "Multistep-SAM")
    assert f"came out best by noisy labels**, at {accuracy:.1f} %: {said}" in PAGE
    assert accuracy == max(mean(TEN, label) for label in TEN["rows"])
    assert f"is {ours.mean:.1f} ({ours.low:.1f} to {ours.high:.1f}), which" in PAGE
    assert f"best by noisy labels, {said}" in text("docs/choose.md")
    assert f"to compare with SGD, at {accuracy:.1f})" in text("README.md")


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
    assert 100 * min(differences.values(TEN, "SGD", "test_accuracy")) - longest > 6


def test_ten_searches_by_clean_labels():
    sam, ours, adds = (
        over(CLEAN, *rows) for rows in (("SAM", "SGD"), (OURS, "SGD"), (OURS, "SAM"))
    )
    intervals = [f"({it.low:.1f} to {it.high:.1f})" for it in (sam, ours, adds)]
    assert (
        f"SAM ends {sam.mean:.1f} points above SGD {intervals[0]}, {OURS} "
        f"{ours.mean:.1f} {intervals[1]}; {OURS}'s difference to SAM is "
        f"{adds.mean:.1f} {intervals[2]}."
    ) in PAGE
    found = claims("searches-40-clean", CLEAN)
    assert [claim[-1] for claim in found] == ["not shown"] * 4
    corrected = [float(claim[4]) for claim in found[:2]]
    assert "after Holm's correction p is {:.2f} and {:.2f}".format(*corrected) in PAGE
    means = [mean(CLEAN, label) for label in ("SGD", "SAM", OURS)]
    assert f"Expected were {means[0]:.1f} % for SGD, as it came" in PAGE
    sentence = "SGD at {:.1f}, SAM at {:.1f} and Lookbehind-SAM at {:.1f}"
    assert sentence.format(*means) in text("README.md")
    for page in map(text, ("README.md", "docs/choose.md")):
        assert f"{adds.mean:.1f} {intervals[2]} " in page
    choose = text("docs/choose.md")
    assert f"SAM [{sam.mean:.1f} points above SGD](evidence/searched.md)" in choose
    assert f"({sam.low:.1f} to {sam.high:.1f}; not significant" in choose


def test_multistep_sam_by_clean_labels():
    best, ours = over(CLEAN, "Multistep-SAM", "SGD"), over(CLEAN, OURS, "Multistep-SAM")
    assert (
        f"is at {mean(CLEAN, 'Multistep-SAM'):.1f} %, {best.mean:.1f} points above SGD "
        f"({best.low:.1f} to {best.high:.1f}), and {OURS}'s difference to it is "
        f"{round(ours.mean, 1) + 0.0:.1f} ({ours.low:.1f} to {ours.high:.1f})."
    ) in PAGE


def test_clean_labels_choose_better():
    labels = ("SGD", "SAM", OURS)
    accuracies = [
        [100 * differences.values(it, label, "test_accuracy") for label in labels]
        for it in (TEN, CLEAN)
    ]
    worst = min(min(it) for it in accuracies[1])
    multistep = 100 * differences.values(CLEAN, "Multistep-SAM", "test_accuracy")
    assert multistep.min() > worst
    none = f"by clean labels, none of any method below {np.floor(10 * worst) / 10:.1f}."
    assert none in text("docs/choose.md")
    assert f"no search ends below {np.floor(10 * worst) / 10:.1f} %" in PAGE
    noisy, clean = ([np.std(it, ddof=1) for it in of] for of in accuracies)
    for who, label in (("SAM's accuracies scatter by", 1), (f"those of {OURS} by", 2)):
        points = " points" if label == 1 else ""
        assert f"{who} {clean[label]:.1f}{points}, not {noisy[label]:.1f}" in PAGE


def test_what_clean_labels_choose():
    choose = text("docs/choose.md")
    sentences = {
        "SGD": "SGD for 6 epochs nine times (rates of {:.2f} to {:.2f})",
        "SAM": "12 or 25 nine times ({:.2f} to {:.2f}, ρ from {:.2f} to {:.1f})",
        OURS: "17 eight times ({:.2f} to {:.2f}, ρ from {:.2f} to {:.2f})",
    }
    epochs = {"SGD": (6,), "SAM": (12, 25), OURS: (17,)}
    for label, times in {"SGD": 9, "SAM": 9, OURS: 8}.items():
        seeds = CLEAN["rows"][label]["seeds"].values()
        found = [
            it["params"] for it in seeds if it["params"]["epochs"] in epochs[label]
        ]
        assert len(found) == times
        names = ("learning_rate", "rho") if label != "SGD" else ("learning_rate",)
        ends = [end(it[name] for it in found) for name in names for end in (min, max)]
        assert sentences[label].format(*ends) in choose


def test_prices_and_calibration_of_the_searches():
    choose = text("docs/choose.md")
    errors = []
    for results in (TEN, CLEAN):
        sgd = mean(results, "SGD", "gradients")
        for label in ("SAM", OURS):
            assert 5 < mean(results, label, "gradients") / sgd < 7
            errors.append(mean(results, label, "test_ece"))
        errors.append(mean(results, "SGD", "test_ece"))
    assert "for 5 to 7 times SGD's gradients" in choose
    assert f"{min(errors):.0f} to {max(errors):.0f} % for [all of them]" in choose
    gains = [mean(CLEAN, label) - mean(TEN, label) for label in ("SGD", "SAM", OURS)]
    assert f"end {min(gains):.1f} to {max(gains):.1f} points higher" in PAGE


def test_single_searches():
    adds = [over(it, OURS, "SAM") for it in (FIRST, SECOND, read("noise-40"))]
    means = [it.mean for it in adds]
    assert max(it.p for it in adds) < 0.05
    sentence = f"put it [{min(means):.1f} to {max(means):.1f} points]"
    assert sentence in text("docs/choose.md")


def test_the_same_training_twice():
    pairs = [
        (seed, TEN["rows"][label]["seeds"][number])
        for label, row in CLEAN["rows"].items()
        for number, seed in row["seeds"].items()
    ]
    apart = [
        100 * abs(one["test_accuracy"] - other["test_accuracy"])
        for one, other in pairs
        if one["params"] == other["params"]
    ]
    assert f"the {len(apart)} seeds that were trained twice" in PAGE
    assert f"by up to {max(apart):.1f} points" in PAGE
