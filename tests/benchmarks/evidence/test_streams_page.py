"""The numbers of the page on streams of tasks are those of the results."""

import json
from pathlib import Path

import numpy as np

from benchmarks.evidence import answers
from benchmarks.evidence import differences
from benchmarks.evidence.questions import QUESTIONS

NAME = "split-cifar100"
RESULTS = json.loads(Path(f"benchmarks/results/evidence/{NAME}.json").read_text())
METHODS = ("SGD", "SAM", "Lookbehind-SAM", "Multistep-SAM")
SGD, SAM, OURS, MULTISTEP = (f"{it}, replay" for it in METHODS)


def text(path):
    return " ".join(Path(path).read_text().split())


PAGE = text("docs/evidence/streams.md")


def mean(label, name):
    return 100 * np.mean(differences.values(RESULTS, label, name))


def over(row, other):
    found = differences.difference(RESULTS, row, other)
    assert found is not None
    return found


def best_trial(label):
    trials = RESULTS["rows"][label]["trials"].values()
    return max(trials, key=lambda trial: trial["valid_accuracy"])


def test_differences():
    sam, sgd = over(OURS, SAM), over(OURS, SGD)
    table = answers.claims_table(QUESTIONS[NAME], RESULTS).splitlines()
    (claim,) = (it for it in table if f"{OURS} – {SAM} |" in it)
    p = float(claim.split(" | ")[4])
    same = over(OURS, MULTISTEP)
    assert (
        f"{sam.mean:.1f} points more than SAM ({sam.low:.2f} to {sam.high:.2f}; "
        f"p = {p:.2f} after Holm's correction), on each of the five seeds, "
        f"{sgd.mean:.1f} more than SGD ({sgd.low:.1f} to {sgd.high:.1f}) and "
        f"{same.mean:.1f} more than Multistep-SAM ({same.low:.1f} to {same.high:.1f})"
    ) in PAGE
    accuracies = [
        differences.values(RESULTS, it, "test_accuracy") for it in (OURS, SAM)
    ]
    assert (accuracies[0] > accuracies[1]).all()
    assert len(accuracies[0]) == 5
    between = over(SAM, SGD)
    interval = f"({between.low:.1f} to {between.high:.1f})"
    assert f"SAM is {between.mean:.1f} points above SGD {interval}" in PAGE


def test_more_steps_of_sgd():
    more = [f"SGD, {steps} steps, replay" for steps in (2, 3)]
    accuracies, lost = (
        [mean(label, name) for label in (*more, SGD)]
        for name in ("test_accuracy", "forgetting")
    )
    sentence = "SGD ends at {:.1f} %, with three at {:.1f}, with one at {:.1f}, and"
    assert sentence.format(*accuracies) in PAGE
    assert "it forgets {:.0f}, {:.0f} and {:.0f} points".format(*lost) in PAGE
    sentence = "2 or 3 steps on each batch is worse: {:.1f} and {:.1f}"
    assert sentence.format(*accuracies[:2]) in text("docs/choose.md")
    table = answers.claims_table(QUESTIONS[NAME], RESULTS).splitlines()[2:]
    claims = [line.strip("| ").split(" | ") for line in table]
    assert [claim[-1] for claim in claims if claim[-1] != "not run"] == [
        *["not shown"] * 3,
        *["holds"] * 2,
    ]
    p = [float(claim[4]) for claim in claims[-2:]]
    sam, ours = over(SAM, more[0]), over(OURS, more[1])
    assert (
        f"SAM is {sam.mean:.1f} points above SGD with two steps ({sam.low:.1f} to "
        f"{sam.high:.1f}; p = {p[0]:.2f} after Holm's correction) and Lookbehind-SAM "
        f"{ours.mean:.1f} above SGD with three ({ours.low:.1f} to {ours.high:.1f}; "
        "p < 0.001)"
    ) in PAGE
    assert p[1] < 0.001
    scores = [100 * best_trial(label)["valid_accuracy"] for label in (*more, SGD)]
    sentence = (
        "two steps scored {:.1f} % and three {:.1f}, at least as high as one step's"
    )
    assert min(scores) == scores[-1]
    assert f"{sentence} {{:.1f}}".format(*scores) in PAGE
    assert max(accuracies) == accuracies[-1]


def test_accuracies_and_forgetting():
    means = [mean(label, "test_accuracy") for label in (OURS, SAM, SGD)]
    lifelong, choose = (text(f"docs/{it}.md") for it in ("lifelong", "choose"))
    assert "is at {:.1f} %, SAM at {:.1f} and SGD at {:.1f},".format(*means) in lifelong
    sentence = "SGD {2:.1f} %, SAM {1:.1f}, Lookbehind-SAM {0:.1f}"
    assert sentence.format(*means) in choose
    expected = "Expected were 60 % for SAM, 2 points above SGD; it is at"
    assert f"{expected} {means[1]:.1f}" in PAGE
    lost = [mean(label, "forgetting") for label in (OURS, SAM, SGD, MULTISTEP)]
    assert {f"{it:.0f}" for it in lost} == {"11", "12"}
    assert "is about the same for the four methods, 11 to 12 points" in PAGE


def test_what_the_trials_chose():
    radii = [it["params"]["rho"] for it in RESULTS["rows"][OURS]["trials"].values()]
    for label in (OURS, MULTISTEP):
        assert best_trial(label)["params"]["rho"] == min(radii)
    assert best_trial(OURS)["params"]["alpha"] == 0.5
    assert f"and the smallest radius of the six, {min(radii):.3f}. Without" in PAGE
    scores = [
        100 * trial["valid_accuracy"]
        for label in (SAM, OURS, MULTISTEP)
        for trial in RESULTS["rows"][label]["trials"].values()
        if trial["params"]["rho"] == min(radii)
    ]
    best = best_trial(SAM)
    assert (
        f"SAM's trial with {min(radii):.3f} scored {scores[0]:.1f} %, Lookbehind-SAM's "
        f"{scores[1]:.1f} and Multistep-SAM's {scores[2]:.1f}; SAM's best one, with "
        f"{best['params']['rho']:.2f} and a lower rate, "
        f"{100 * best['valid_accuracy']:.1f}."
    ) in PAGE
    for label in (OURS, SGD, MULTISTEP):
        trials = RESULTS["rows"][label]["trials"].values()
        highest = max(it["params"]["learning_rate"] for it in trials)
        assert best_trial(label)["params"]["learning_rate"] == highest
        assert f"all but SAM were best at {highest:.2f}, the highest of the six" in PAGE
    best, sgd = (best_trial(it)["valid_accuracy"] for it in (SAM, SGD))
    assert f"a standard error of {100 * np.sqrt(best * (1 - best) / 1250):.1f}" in PAGE
    assert f"SAM's best trial is {100 * (best - sgd):.1f} points above SGD's" in PAGE
