"""The numbers of the page on the network with BatchNorm are those of the results."""

import json
from pathlib import Path

import numpy as np

from benchmarks.evidence import answers
from benchmarks.evidence import differences
from benchmarks.evidence.questions import QUESTIONS

NAME = "searches-40-convnet"
RESULTS = json.loads(Path(f"benchmarks/results/evidence/{NAME}.json").read_text())
ROWS = RESULTS["rows"]
OURS = "Lookbehind-SAM"
METHODS = ("SGD", "SAM", OURS)


def text(path):
    return " ".join(Path(path).read_text().split())


PAGE = text("docs/evidence/convnet.md")


def over(row, other):
    found = differences.difference(RESULTS, row, other)
    assert found is not None
    assert found.n == 6
    mean, low, high = (round(it, 1) + 0.0 for it in found[:3])
    return f"{mean:.1f}", f"({low:.1f} to {high:.1f})"


def mean(label, name="test_accuracy"):
    return 100 * np.mean(differences.values(RESULTS, label, name))


def scores(label, accepted=lambda params: True):
    return [
        100 * trial["valid_accuracy"]
        for trial in ROWS[label]["trials"].values()
        if accepted(trial["params"])
    ]


def chosen(label, name):
    return [seed["params"][name] for seed in ROWS[label]["seeds"].values()]


def test_nothing_is_shown():
    table = answers.claims_table(QUESTIONS[NAME], RESULTS).splitlines()[2:]
    assert [line.strip("| ").split(" | ")[-1] for line in table] == ["not shown"] * 3
    means = [mean(label) for label in METHODS]
    sentence = "SGD ends at {:.1f} %, SAM at {:.1f} and Lookbehind-SAM at {:.1f}."
    assert sentence.format(*means) in PAGE
    sam, ours, adds = over("SAM", "SGD"), over(OURS, "SGD"), over(OURS, "SAM")
    assert (
        f"SAM's difference to SGD is {sam[0]} points {sam[1]}, {OURS}'s {ours[0]} "
        f"{ours[1]}, and its difference to SAM {adds[0]} {adds[1]}."
    ) in PAGE


def test_prices():
    sgd = mean("SGD", "gradients")
    prices = [mean(label, "gradients") / sgd for label in METHODS[1:]]
    assert "take {:.1f} and {:.1f} times SGD's gradients".format(*prices) in PAGE


def test_epochs():
    assert sorted(chosen("SGD", "epochs")) == [6] * 3 + [12] * 3
    assert "SGD gets 6 epochs three times and 12 three times" in PAGE
    few = max(scores("SGD", lambda params: params["epochs"] in (6, 12)))
    many = max(scores("SGD", lambda params: params["epochs"] == 25))
    assert (
        f"up to {few:.1f} % on the noisy labels, those of 25 up to {many:.1f}" in PAGE
    )
    learned = [mean(label, "flipped_accuracy") for label in ("SGD", "SAM")]
    sentence = "It learns {:.1f} % of the wrong labels; SAM learns {:.1f}."
    assert sentence.format(*learned) in PAGE


def test_radii():
    ends = [end(chosen(label, "rho")) for label in METHODS[1:] for end in (min, max)]
    sentence = "is {:.3f} to {:.3f} for SAM and {:.3f} to {:.3f} for Lookbehind-SAM"
    assert sentence.format(*ends) in PAGE
    large = max(scores("SAM", lambda params: params["rho"] >= 0.05))
    best = max(scores("SAM"))
    assert f"scores above {large:.1f} %, the best {best:.1f}." in PAGE


def test_rates_that_are_too_high():
    bad = {
        label: [
            trial["params"]["learning_rate"]
            for trial in ROWS[label]["trials"].values()
            if trial["valid_accuracy"] < 0.4
        ]
        for label in METHODS
    }
    assert [len(bad[label]) for label in METHODS] == [3, 2, 9]
    assert len(ROWS[OURS]["trials"]) == 72
    assert "Nine of its 72 trials score below 40 %" in PAGE
    assert "three of SGD's and two of SAM's" in PAGE
    assert min(bad[OURS]) > 0.07


def test_what_other_pages_say():
    choose = text("docs/choose.md")
    row = "| [a network with BatchNorm](evidence/convnet.md), noisy labels | {:.1f} | "
    row += "{:.1f} | {:.1f} | |"
    assert row.format(*(mean(label) for label in METHODS)) in choose
    sentence = "[BatchNorm network](docs/evidence/convnet.md): {:.1f}, {:.1f} and "
    sentence = (sentence + "{:.1f} %").format(*(mean(label) for label in METHODS))
    assert sentence in text("README.md")
    low, high = (end(chosen("SAM", "rho")) for end in (min, max))
    assert f"chose {low:.3f} to {high:.3f} for SAM" in text("docs/tuning.md")
