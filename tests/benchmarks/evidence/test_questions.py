"""Every run of the evidence is possible, and as the protocol promises."""

import dataclasses
import itertools
from pathlib import Path
import re

import numpy as np
import pytest

from benchmarks.evidence import cells
from benchmarks.evidence import images
from benchmarks.evidence.noise import LEVELS
from benchmarks.evidence.questions import QUESTIONS
from examples.images import data
from examples.images.config import Config
from examples.images.training import Training
from examples.lifelong.methods import METHODS
from examples.search.space import parse
from tests.library.members import each

pytestmark = pytest.mark.usefixtures("standard_promotion")
DIGITS = data.load("digits")
IMAGES = dataclasses.replace(  # of the size that a vision transformer cuts up
    DIGITS,
    train=data.Examples(
        np.zeros((500, 32, 32, 1), np.uint8), DIGITS.train.labels[:500]
    ),
)


OF_IMAGES = [name for name, it in QUESTIONS.items() if isinstance(it.config, Config)]


def phases(question, row):
    """What trains, with a trial's parameters if it searches."""
    params = cells.draw(question, row, 0) if row.space else {}
    options = {**row.options, **params}
    config = images.configure(question.config, options, Path("nowhere"), False)
    return config.epochs, Training(config, IMAGES).phases


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_row_is_a_training_of_its_own(name):
    question = QUESTIONS[name]
    names = [cell.name for cell in cells.cells(question)]
    assert len(set(names)) == len(names)
    labels = {row.label for row in question.rows}
    assert len(labels) == len(question.rows)
    assert question.reference in labels
    for claim in question.claims:
        assert {claim.row, claim.over} <= labels


# Rows that are compared with one another alone.
WITHOUT_A_PRICE = (
    *("budget-40", "epochs-40", "epochs-0", "epochs-40-again", "searches-40"),
    *("searches-40-clean", "searches-40-convnet", "searches-0"),
    *("range", "rates", "rates-best"),
)


@pytest.mark.parametrize(
    "name",
    each([name for name in OF_IMAGES if name not in WITHOUT_A_PRICE], ["noise-0"]),
)
def test_the_base_takes_as_many_gradients_as_every_row(name):
    question = QUESTIONS[name]
    prices = {}
    for row in question.rows:
        epochs, trained = phases(question, row)
        if len(trained) == 1:
            price = epochs * trained[0].gradients / question.config.epochs
            prices[row.label] = price
    of_base = {
        price for label, price in prices.items() if label.startswith(("SGD", "AdamW"))
    }
    assert set(prices.values()) == of_base
    assert {1, 2, 3} <= of_base


@pytest.mark.thorough
def test_a_share_of_climbs_costs_the_same_wherever_they_are():
    question = QUESTIONS["price-40"]
    steps = 0
    for share in (0.1, 0.2, 0.3, 0.5):
        climbs = []
        for row in question.rows:
            if row.x == share:
                _, trained = phases(question, row)
                starts = [0, *(phase.until for phase in trained)]
                steps = starts[-1]
                lengths = [b - a for a, b in itertools.pairwise(starts)]
                pairs = zip(trained, lengths, strict=True)
                climbs.append(sum(n for phase, n in pairs if phase.name != "base"))
        assert len(climbs) == (6 if share == 0.3 else 5)
        assert climbs == pytest.approx([share * steps] * len(climbs), abs=6)


def test_nothing_of_the_budget_takes_more_gradients_than_50_epochs_of_sgd():
    question = QUESTIONS["budget-40"]
    for row in question.rows:
        epochs, (trained,) = phases(question, row)
        assert row.x == pytest.approx(epochs * trained.gradients / 50, rel=0.05)
        assert row.label == f"{row.line}, {epochs} epochs"
        assert row.x <= 1


@pytest.mark.parametrize(
    ("name", "of_sgd"), [("epochs-40", 50), ("searches-40-convnet", 25)]
)
def test_searched_epochs_end_at_the_gradients_of_sgds_longest(name, of_sgd):
    question = QUESTIONS[name]
    for row in question.rows:
        choices = parse(row.space)["epochs"].choices
        dearest = {**cells.draw(question, row, 0), "epochs": max(choices)}
        options = {**row.options, **dearest}
        config = images.configure(question.config, options, Path("nowhere"), False)
        (trained,) = Training(config, IMAGES).phases
        gradients = max(choices) * trained.gradients
        assert gradients == pytest.approx(of_sgd, rel=0.04)


def test_a_second_search_continues_the_first():
    first, second = QUESTIONS["epochs-40"], QUESTIONS["epochs-40-again"]
    all_of_them = QUESTIONS["searches-40"]
    assert second.rows == first.rows == all_of_them.rows
    for row in first.rows:
        after = cells.draw(all_of_them, row, 24 + 3)
        assert cells.draw(first, row, 24 + 3) == cells.draw(second, row, 3) == after


def test_searches_with_clean_labels_begin_with_the_one():
    one, six = QUESTIONS["epochs-0"], QUESTIONS["searches-0"]
    assert six.config == one.config
    assert six.rows == one.rows[:3]
    for row in six.rows:
        assert cells.draw(six, row, 23) == cells.draw(one, row, 23)


def test_clean_labels_score_the_same_trainings():
    noisy, clean = QUESTIONS["searches-40"], QUESTIONS["searches-40-clean"]
    config = dataclasses.replace(noisy.config, clean_validation=True)
    assert clean == noisy._replace(about=clean.about, config=config)


def test_each_seed_has_a_search_of_its_own():
    of_sam = [
        (cell.kind, cell.number)
        for cell in cells.cells(QUESTIONS["searches-40"])
        if cell.row.label == "SAM"
    ]
    assert of_sam[24] == ("seeds", 0)
    assert of_sam[25:49] == [("trials", number) for number in range(24, 48)]
    assert of_sam[49] == ("seeds", 1)
    assert len(of_sam) == 10 * (24 + 1)


def test_every_learner_of_a_stream_can_be_made():
    question = QUESTIONS["split-cifar100"]
    for row in question.rows:
        config = dataclasses.replace(
            question.config, **row.options, **cells.draw(question, row, 0)
        )
        (name,) = config.methods
        assert METHODS[name].replay == row.label.endswith(", replay")


def test_only_the_first_level_of_noise_searches():
    first, *others = (QUESTIONS[f"noise-{percent}"] for percent in LEVELS)
    assert {cell.kind for cell in cells.cells(first)} == {"trials", "seeds"}
    for other in others:
        assert {cell.kind for cell in cells.cells(other)} == {"seeds"}
        assert other.rows == first.rows[: len(other.rows)]
        assert {*other.claims} < {*first.claims}


def test_rows_search_the_same_rates_and_radii():
    question = QUESTIONS["noise-40"]
    rows = question.rows
    for number in range(3):
        drawn = [cells.draw(question, row, number) for row in rows]
        assert len({it["learning_rate"] for it in drawn}) == 1
        radii = {it["rho"] for it in drawn if "rho" in it}
        assert max(radii) == pytest.approx(10 * min(radii))  # ASAM's and the others'
        assert len({round(rho, 12) for rho in radii}) == 2
        for row, it in zip(rows, drawn, strict=True):
            assert it.keys() == parse(row.space).keys()
    first, second = (cells.draw(question, rows[1], number) for number in (0, 1))
    assert first != second


def test_even_trials_by_hand():
    question = QUESTIONS["split-cifar100"]
    rows = {row.label: row for row in question.rows}
    # Digits of 1, 2, … after the point, in reverse: in base 2, 3 and 5.
    shares = [(1 / 2, 1 / 3, 1 / 5), (1 / 4, 2 / 3, 2 / 5), (3 / 4, 1 / 9, 3 / 5)]
    for number, (rate, rho, alpha) in enumerate(shares):
        expected = {
            "learning_rate": 0.01 * 30**rate,
            "rho": 0.01 * 20**rho,
            "alpha": [0.2, 0.5, 0.8][int(3 * alpha)],
        }
        drawn = cells.draw(question, rows["Lookbehind-SAM, replay"], number)
        assert drawn == pytest.approx(expected)
        del expected["alpha"]
        drawn = cells.draw(question, rows["Multistep-SAM"], number)
        assert drawn == pytest.approx(expected)
        del expected["rho"]
        assert cells.draw(question, rows["SGD"], number) == pytest.approx(expected)


def test_the_protocol_names_every_claim_of_question_1():
    page = Path("docs/protocol.md").read_text()
    lines = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    claims = QUESTIONS["noise-40"].claims
    assert lines == [(it.text.rstrip("."), it.row, it.over) for it in claims]


def test_climbs_of_a_map_over_rates_reach_equally_far():
    for row in QUESTIONS["rates"].rows:
        if row.line:
            assert row.options["rho"] * row.options.get("k", 1) == pytest.approx(row.x)
            assert f"η = {row.options['learning_rate']:g}," in row.label
