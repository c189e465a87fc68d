"""Question 2: how wide is the range of ρ and k, and of the learning rate?"""

import dataclasses

from benchmarks.evidence.noise import NOISY
from benchmarks.evidence.noise import SGD
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Options
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row

KS = (2, 5)
RHOS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)


def grid() -> tuple[Row, ...]:
    """Question 2's rows: ρ × k."""
    rows = [Row("SGD", SGD)]
    for k in KS:
        for rho in RHOS:
            ways: dict[str, Options] = {
                "SAM of radius kρ": {"optimizer": "sam", "rho": k * rho},
                "Multistep-SAM": {"optimizer": "multistep_sam", "k": k, "rho": rho},
            }
            for pullback in ("none", "pullback"):
                label = "Lookbehind-SAM" + ", pullback" * (pullback != "none")
                ways[label] = {
                    "optimizer": "lookbehind_sam",
                    "k": k,
                    "rho": rho,
                    "alpha": 1 / k,
                    "pullback": pullback,
                }
            rows += [
                Row(
                    f"{label}, k = {k}, ρ = {rho:g}",
                    options,
                    line=f"{label}, k = {k}",
                    x=rho,
                    method=label,
                )
                for label, options in ways.items()
            ]
    return tuple(rows)


RATES = (0.015, 0.03, 0.06, 0.12, 0.24)
BASE_RATES = (*RATES, 0.48, 0.96)  # SGD wants a higher one
REACHES = (0.1, 0.2, 0.3, 0.4, 0.6)  # kρ


WAYS: dict[str, Options] = {
    "SAM": {"optimizer": "sam"},
    "Lookbehind-SAM": {"optimizer": "lookbehind_sam", "k": 2, "alpha": 0.2},
    "Multistep-SAM": {"optimizer": "multistep_sam", "k": 2},
}
# Rate and kρ of the best cell, by the first seed.
BEST = {
    "SAM": (0.015, 0.2),
    "Lookbehind-SAM": (0.06, 0.4),
    "Multistep-SAM": (0.03, 0.3),
}


def at(label: str, eta: float, reach: float) -> Options:
    """A method with a learning rate and a radius kρ."""
    way = WAYS[label]
    return {**way, "learning_rate": eta, "rho": reach / way.get("k", 1)}


def over_rates() -> tuple[Row, ...]:
    """Rows of learning rate × kρ: every method's climbs reach equally far."""
    rows = [
        Row(f"SGD, η = {eta:g}", {**SGD, "learning_rate": eta}) for eta in BASE_RATES
    ]
    for label in WAYS:
        for eta in RATES:
            for reach in REACHES:
                rows.append(
                    Row(
                        f"{label}, η = {eta:g}, kρ = {reach:g}",
                        at(label, eta, reach),
                        line=f"{label}, η = {eta:g}",
                        x=reach,
                        method=label,
                    )
                )
    return tuple(rows)


QUESTION = Question(
    about="How wide is the range of ρ and k, with 40 % wrong labels?",
    config=dataclasses.replace(NOISY, learning_rate=0.1, label_noise=0.4),
    train=10_000,
    rows=grid(),
    reference="SGD",
    claims=(),
    seeds=3,
    x="ρ",
    width=True,
)
OVER_RATES = QUESTION._replace(
    about="Learning rate and radius together, with 40 % wrong labels",
    rows=over_rates(),
    reference="SGD, η = 0.24",
    x="kρ",
)
BEST_OF_RATES = Question(
    about="The best learning rate and radius of each, with 40 % wrong labels",
    config=QUESTION.config,
    train=10_000,
    rows=(
        Row("SGD", {**SGD, "learning_rate": 0.24}),
        *(Row(label, at(label, *cell)) for label, cell in BEST.items()),
    ),
    reference="SAM",
    claims=(
        Claim("A climb pays, both at their best.", "SAM", "SGD"),
        Claim("Lookbehind adds to SAM, both at their best.", "Lookbehind-SAM", "SAM"),
        Claim(
            "All gradients of the climb beat its last one, both at their best.",
            "Lookbehind-SAM",
            "Multistep-SAM",
        ),
    ),
)
