"""The numbers of the page on clean labels are those of the results."""

import json
from pathlib import Path

import numpy as np

from benchmarks.evidence import answers
from benchmarks.evidence import differences
from benchmarks.evidence.questions import QUESTIONS

NAME = "epochs-0"
RESULTS = json.loads(Path(f"benchmarks/results/evidence/{NAME}.json").read_text())
ROWS = RESULTS["rows"]
OURS, MULTISTEP = "Lookbehind-SAM", "Multistep-SAM"


def text(path):
    return " ".join(Path(path).read_text().split())


PAGE = text("docs/evidence/clean.md")


def over(row, other, digits):
    found = differences.difference(RESULTS, row, other)
    assert found is not None
    assert found.n == 10
    mean, low, high = (f"{it:.{digits}f}" for it in (found.mean, found.low, found.high))
    return mean, f"({low} to {high}"


def mean(label, name="test_accuracy"):
    return 100 * np.mean(differences.values(RESULTS, label, name))


def best_trial(label, **options):
    trials = ROWS[label]["trials"].values()
    trials = [it for it in trials if options.items() <= it["params"].items()]
    return max(trials, key=lambda trial: trial["valid_accuracy"])


def test_claims():
    table = answers.claims_table(QUESTIONS[NAME], RESULTS).splitlines()[2:]
    claims = [line.strip("| ").split(" | ") for line in table]
    verdicts = [claim[-1] for claim in claims]
    assert verdicts == ["holds", "holds", "not shown", "not shown"]
    assert f"p = {float(claims[2][4]):.3f} after Holm's correction" in PAGE


def test_differences():
    sam, ours = over("SAM", "SGD", 1), over(OURS, "SGD", 1)
    assert f"SAM ends {sam[0]} points above SGD {sam[1]}) and {OURS} {ours[0]}" in PAGE
    assert f"{ours[0]} {ours[1]}); both claims hold" in PAGE
    below, same = over(OURS, "SAM", 2), over(OURS, MULTISTEP, 2)
    assert f"it ends {below[0].removeprefix('-')} points below {below[1]};" in PAGE
    assert f"same rate, radius and epochs: {same[0]} {same[1]})" in PAGE
    choices = [best_trial(label)["params"] for label in (OURS, MULTISTEP)]
    assert choices[0] == choices[1]
    assert max(mean(label) for label in ROWS) < 87


def test_epochs_and_their_price():
    found = {label: best_trial(label)["params"]["epochs"] for label in ROWS}
    assert found == {"SGD": 12, "SAM": 25, OURS: 17, MULTISTEP: 17}
    gradients = [mean(label, "gradients") for label in ("SAM", "SGD")]
    assert round(gradients[0] / gradients[1]) == 4
    best, longest = (
        100 * it["valid_accuracy"]
        for it in (best_trial("SGD"), best_trial("SGD", epochs=50))
    )
    error = np.sqrt(best * (100 - best) / 1000)
    assert (
        f"is {best - longest:.1f} points below that, with a standard error of" in PAGE
    )
    assert f"a standard error of {error:.1f}." in PAGE


def test_calibration():
    errors = [mean(label, "test_ece") for label in ("SAM", "SGD", OURS)]
    sentence = "SAM's confidence is {:.1f} %, SGD's {:.1f} and Lookbehind-SAM's {:.1f}."
    assert sentence.format(*errors) in PAGE


def test_what_other_pages_say():
    sam, sgd = mean("SAM"), mean("SGD")
    assert f"SAM ends at {sam:.1f} %, SGD at {sgd:.1f}" in text("README.md")
    choose = text("docs/choose.md")
    assert f"SAM {sam:.1f} %, SGD {sgd:.1f}" in choose
