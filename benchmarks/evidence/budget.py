"""Question 3's other half: what to do with the gradients of 50 epochs of SGD?"""

import dataclasses

from benchmarks.evidence.noise import NOISY
from benchmarks.evidence.price import NAMES
from benchmarks.evidence.price import UNTUNED
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Options
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row

RATES = (0.03, 0.1)
# The longest of each takes the gradients of 50 epochs of SGD, the others fewer.
LENGTHS = {
    "SGD": (50, 25, 12, 6, 3),
    "SAM": (25, 12, 6, 3),
    "Lookbehind-SAM": (17, 8, 4, 2),
}


def label(method: str, epochs: int, rate: float) -> str:
    """Of a row."""
    return f"{method}, {epochs} epochs, η = {rate:g}"


def lengths(method: str, rate: float) -> list[Row]:
    """A row for each number of epochs."""
    rows = []
    for epochs in LENGTHS[method]:
        if method == "SGD":
            options: Options = {"optimizer": "base"}
            gradients = epochs
        else:
            options = {"optimizer": NAMES[method], **UNTUNED[method]}
            gradients = epochs * (1 + options.get("k", 1))
        options |= {"epochs": epochs, "learning_rate": rate}
        name, line = label(method, epochs, rate), f"{method}, η = {rate:g}"
        rows.append(Row(name, options, line=line, x=gradients / NOISY.epochs))
    return rows


def claims(rate: float) -> list[Claim]:
    """What is claimed at a rate: that a climb pays, and that more climbs pay more."""
    sam = label("SAM", 25, rate)
    return [
        *(
            Claim(
                f"At {rate:g}, SAM in half of the epochs is above SGD in {share}.",
                sam,
                label("SGD", epochs, rate),
            )
            for share, epochs in (("all", 50), ("half", 25), ("a quarter", 12))
        ),
        Claim(
            f"At {rate:g}, Lookbehind in a third of the epochs is above SAM in half.",
            label("Lookbehind-SAM", 17, rate),
            sam,
        ),
    ]


QUESTION = Question(
    about="The gradients of 50 epochs of SGD or fewer, with 40 % wrong labels",
    config=dataclasses.replace(NOISY, label_noise=0.4),
    train=10_000,
    rows=tuple(
        row for method in LENGTHS for rate in RATES for row in lengths(method, rate)
    ),
    reference=label("SGD", 50, 0.1),
    claims=tuple(claim for rate in RATES for claim in claims(rate)),
    seeds=5,
    x="gradients, relative to 50 epochs of SGD",
)
