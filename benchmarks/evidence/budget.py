"""Question 3's second part: what to do with the gradients of 50 epochs of SGD?"""

import dataclasses

from benchmarks.evidence.noise import EPOCHS
from benchmarks.evidence.noise import NOISY
from benchmarks.evidence.price import NAMES
from benchmarks.evidence.price import UNTUNED
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Options
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row

RATES = (0.03, 0.1)
# Gradients relative to 50 epochs of SGD, and what takes as many, to within 5 %.
PRICES = (1, 0.5, 0.25, 0.12, 0.06)
LENGTHS = {
    "SGD": (EPOCHS, 25, 12, 6, 3),
    "SAM": (25, 12, 6, 3),
    "Lookbehind-SAM": (17, 8, 4, 2),
}
# SAM's radius is k times Lookbehind's. The first are those of the first part.
RADII = {
    "SGD": (0.0,),
    "SAM": (UNTUNED["SAM"]["rho"], 0.2, 0.1),
    "Lookbehind-SAM": (UNTUNED["Lookbehind-SAM"]["rho"], 0.1, 0.05),
}


def line(method: str, rate: float, rho: float = 0.0) -> str:
    """Of a map; of SGD without a radius."""
    return f"{method}, η = {rate:g}" + f", ρ = {rho:g}" * (rho > 0)


def lengths(method: str, rate: float, rho: float) -> list[Row]:
    """A row for each number of epochs."""
    options: Options = {"optimizer": "base"}
    if method != "SGD":
        options = {"optimizer": NAMES[method], **UNTUNED[method], "rho": rho}
    of_map = line(method, rate, rho)
    return [
        Row(
            f"{of_map}, {epochs} epochs",
            options | {"epochs": epochs, "learning_rate": rate},
            line=of_map,
            x=price,
            method=method,
        )
        for epochs, price in zip(LENGTHS[method], PRICES, strict=False)
    ]


def claims(rate: float) -> list[Claim]:
    """What is claimed at a rate: that a climb pays, and that more climbs pay more."""
    sam = f"{line('SAM', rate, 0.4)}, 25 epochs"
    return [
        *(
            Claim(
                f"At {rate:g}, SAM in half of the epochs is above SGD in {share}.",
                sam,
                f"{line('SGD', rate)}, {epochs} epochs",
            )
            for share, epochs in (("all", 50), ("half", 25), ("a quarter", 12))
        ),
        Claim(
            f"At {rate:g}, Lookbehind in a third of the epochs is above SAM in half.",
            f"{line('Lookbehind-SAM', rate, 0.2)}, 17 epochs",
            sam,
        ),
    ]


# Of the best cells of the first seed.
BEST_SGD = f"{line('SGD', 0.1)}, 6 epochs"
BEST_SAM = f"{line('SAM', 0.03, 0.2)}, 25 epochs"
BEST_LOOKBEHIND = f"{line('Lookbehind-SAM', 0.03, 0.1)}, 17 epochs"
BEST = (
    Claim("SAM is above SGD, both at their best.", BEST_SAM, BEST_SGD),
    Claim("Lookbehind is above SAM, both at their best.", BEST_LOOKBEHIND, BEST_SAM),
)


QUESTION = Question(
    about="The gradients of 50 epochs of SGD or fewer, with 40 % wrong labels",
    config=dataclasses.replace(NOISY, label_noise=0.4),
    train=10_000,
    rows=tuple(
        row
        for method, radii in RADII.items()
        for rho in radii
        for rate in RATES
        for row in lengths(method, rate, rho)
    ),
    reference=BEST_SGD,
    claims=(*(claim for rate in RATES for claim in claims(rate)), *BEST),
    seeds=5,
    x="gradients, relative to 50 epochs of SGD",
    width=True,
)
