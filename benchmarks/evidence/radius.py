"""Question 2: how wide is the range of ρ and k?"""

import dataclasses

from benchmarks.evidence.noise import NOISY
from benchmarks.evidence.noise import SGD
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
                )
                for label, options in ways.items()
            ]
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
