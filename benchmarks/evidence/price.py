"""Question 3: can a climb be had at the price of SGD?"""

import dataclasses

from benchmarks.evidence.noise import EPOCHS
from benchmarks.evidence.noise import NOISY
from benchmarks.evidence.noise import SGD
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Options
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row

LEVELS = (40, 0)  # percent of wrong labels
SHARES = (0.1, 0.2, 0.3, 0.5)
# What question 3 doesn't search. SAM's radius is k times Lookbehind's.
UNTUNED: dict[str, Options] = {
    "SAM": {"rho": 0.4},
    "Lookbehind-SAM": {"rho": 0.2, "k": 2, "alpha": 0.5},
}
NAMES = {"SAM": "sam", "Lookbehind-SAM": "lookbehind_sam"}


def spread_evenly(name: str, share: float, parts: int = 10) -> tuple[str, ...]:
    """Phases that alternate, each part ending with its share of climbs."""
    phases = []
    for part in range(parts):
        phases.append(f"base until {(part + 1 - share) / parts:g}")
        phases.append(f"{name} until {(part + 1) / parts:g}")
    return tuple(phases)


def late(label: str, share: float) -> dict[str, Options]:
    """The ways to climb in a share of the training; of Lookbehind's, what costs least.

    Returns:
      Options by what they are called.
    """
    name = NAMES[label]
    own = UNTUNED[label]
    ends = (f"base until {1 - share:g}", f"{name} until 1")
    starts = (f"{name} until {share:g}", "base until 1")
    best = {"late, own anneal": {**own, "phases": ends, "anneal": "each"}}
    if label != "SAM":
        return best
    return {
        **best,
        "late, one anneal": {**own, "phases": ends},
        "early": {**own, "phases": starts},
        "spread evenly": {**own, "phases": spread_evenly(name, share)},
    }


def shares() -> tuple[Row, ...]:
    """Question 3's rows: none, all, and each share in each way."""
    rows = [Row("SGD", SGD)]
    rows += [
        Row(f"SGD, {times} × the epochs", {**SGD, "epochs": times * EPOCHS})
        for times in (2, 3)
    ]
    halves = ("base until 0.7", "base until 1")
    rows.append(Row("SGD, two anneals", {"phases": halves, "anneal": "each"}))
    early = ("sam until 0.3", "base until 1")  # a late phase turned round
    options = {**UNTUNED["SAM"], "phases": early, "anneal": "each"}
    label = "SAM, early, two anneals"
    rows.append(Row(f"{label}, 0.3", options, line=label, x=0.3))
    rows += [
        Row(label, {"optimizer": NAMES[label], **own}, x=1)
        for label, own in UNTUNED.items()
    ]
    for share in SHARES:
        for label in UNTUNED:
            rows += [
                Row(
                    f"{label}, {way}, {share:g}",
                    options,
                    line=f"{label}, {way}",
                    x=share,
                )
                for way, options in late(label, share).items()
            ]
    return tuple(rows)


def question(percent: int) -> Question:
    """Question 3, with or without wrong labels."""
    return Question(
        about=f"Climbing at the price of SGD, with {percent} % wrong labels",
        config=dataclasses.replace(NOISY, learning_rate=0.1, label_noise=percent / 100),
        train=10_000,
        rows=shares(),
        reference="Lookbehind-SAM",
        claims=(
            Claim(
                "A late phase of 0.3 is above twice as long a training by SGD.",
                "SAM, late, own anneal, 0.3",
                "SGD, 2 × the epochs",
            ),
            Claim(
                "It is its own anneal that a late phase needs.",
                "SAM, late, own anneal, 0.3",
                "SAM, late, one anneal, 0.3",
            ),
            Claim(
                "Climbs are better late than spread evenly.",
                "SAM, late, own anneal, 0.3",
                "SAM, spread evenly, 0.3",
            ),
            Claim(
                "With two anneals, climbs are better late than early.",
                "SAM, late, own anneal, 0.3",
                "SAM, early, two anneals, 0.3",
            ),
            Claim(
                "It is the climbs, not a second anneal.",
                "SAM, late, own anneal, 0.3",
                "SGD, two anneals",
            ),
            Claim(
                "Late climbs of Lookbehind are worth more than SAM's at one price.",
                "Lookbehind-SAM, late, own anneal, 0.1",
                "SAM, late, own anneal, 0.2",
            ),
        ),
        seeds=5,
        x="share of the training with climbs",
    )
