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


SIX = json.loads(Path("benchmarks/results/evidence/searches-0.json").read_text())


def of_six(row, other):
    found = differences.difference(SIX, row, other)
    assert found is not None
    assert found.n == 6
    mean, low, high = (f"{round(it, 1) + 0.0:.1f}" for it in found[:3])
    return mean, f"({low} to {high})"


def mean_of_six(label, name="test_accuracy"):
    return 100 * np.mean(differences.values(SIX, label, name))


def chosen(label, name):
    return [seed["params"][name] for seed in SIX["rows"][label]["seeds"].values()]


def test_six_searches():
    table = answers.claims_table(QUESTIONS["searches-0"], SIX).splitlines()[2:]
    claims = [line.strip("| ").split(" | ") for line in table]
    assert [claim[-1] for claim in claims] == ["holds", "not shown", "not shown"]
    sam, ours, adds = of_six("SAM", "SGD"), of_six(OURS, "SGD"), of_six(OURS, "SAM")
    accuracies = f"{mean_of_six('SAM'):.1f} % to {mean_of_six('SGD'):.1f}."
    assert f"{accuracies} The difference is {sam[0]} {sam[1][:-1]}; p = 0.03" in PAGE
    assert [f"{float(claim[4]):.2f}" for claim in claims] == ["0.03", "0.17", "0.08"]
    below = adds[0].removeprefix("-")
    assert (
        f"it ends at {mean_of_six(OURS):.1f} %, {ours[0]} points above {ours[1]}, and "
        f"{below} points below SAM {adds[1]}, which isn't shown either (p = 0.08)"
    ) in PAGE
    assert min(chosen("SGD", "epochs")) == 6
    assert max(chosen("SGD", "epochs")) == 25
    assert set(chosen("SAM", "epochs")) == {12, 25}


def test_the_first_search_is_that_of_ten_seeds():
    for label, row in SIX["rows"].items():
        assert row["seeds"]["0"] == ROWS[label]["seeds"]["0"]


def test_what_other_pages_say():
    sam, ours = of_six("SAM", "SGD"), of_six(OURS, "SGD")
    readme, choose = text("README.md"), text("docs/choose.md")
    assert f"SAM ends {sam[0]} points above SGD {sam[1]} over [six" in readme
    price = mean_of_six("SAM", "gradients") / mean_of_six("SGD", "gradients")
    times = f"{price:.1f} times"
    assert f"at {mean_of_six('SAM'):.1f} % for {times} the gradients" in readme
    assert f"searched epochs {times} SGD's gradients" in choose
    assert f"by 0.3 points**, for {times} its gradients" in PAGE
    link = "(evidence/clean.md)"
    found = f"SAM [{sam[0]} points above SGD]{link} {sam[1][:-1]}; six searches"
    assert found in choose
    assert f"{OURS} {ours[0]} {ours[1]}. With few" in choose
    radii = chosen("SAM", "rho")
    assert f"| {min(radii):.2f} to {max(radii):.1f} here |" in choose
