"""Question 3's third part: does a climb pay once the number of epochs is searched?"""

import dataclasses

from benchmarks.evidence.noise import method
from benchmarks.evidence.noise import NOISY
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Options
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from benchmarks.evidence.question import Space

# For SGD, for SAM's two gradients a step, and for three. No choice takes more gradients
# than 50 epochs of SGD, or 25, to within 4 %.
EPOCHS = ("epochs=3,6,12,25,50", "epochs=3,6,12,25", "epochs=2,4,8,17")
FEWER_EPOCHS = ("epochs=3,6,12,25", "epochs=3,6,12", "epochs=2,4,8")
# SAM's radius, and half of it for Lookbehind and Multistep-SAM, which climb twice.
RADII = ("rho=log:0.05:0.5", "rho=log:0.025:0.25")
SMALLER_RADII = ("rho=log:0.005:0.1", "rho=log:0.0025:0.05")

LEVELS = (40, 0)  # percent of wrong labels


def methods(epochs: Space, radii: Space) -> tuple[Row, ...]:
    """The rows, with the epochs and radii that each may have."""
    (alone, twice, thrice), (whole, half) = epochs, radii
    lookbehind: Options = {"k": 2, "alpha": 0.5}
    return (
        method("SGD", "base", alone),
        method("SAM", "sam", twice, whole),
        method("Lookbehind-SAM", "lookbehind_sam", thrice, half, **lookbehind),
        method("Multistep-SAM", "multistep_sam", thrice, half, k=2),
    )


def question(percent: int) -> Question:
    """One search with wrong labels or without."""
    return Question(
        about=f"Which method, with {percent} % wrong labels and searched epochs?",
        config=dataclasses.replace(NOISY, label_noise=percent / 100),
        train=10_000,
        rows=methods(EPOCHS, RADII),
        reference="SAM",
        claims=(
            Claim("A climb pays.", "SAM", "SGD"),
            Claim("Lookbehind pays.", "Lookbehind-SAM", "SGD"),
            Claim("Lookbehind adds to SAM.", "Lookbehind-SAM", "SAM"),
            Claim(
                "All gradients of the climb are worth more than its last one.",
                "Lookbehind-SAM",
                "Multistep-SAM",
            ),
        ),
        trials=24,
        even=True,
    )


def searches(of: Question, seeds: int) -> Question:
    """Each seed with a search of its own; the first search is that of `of`."""
    about = f"{of.about} A search for each seed"
    return of._replace(about=about, seeds=seeds, searches=seeds)


def shorter(of: Question) -> Question:
    """Without Multistep-SAM, the last row, and its claim, to save time."""
    return of._replace(rows=of.rows[:-1], claims=of.claims[:-1])


NOISY_LABELS = question(40)
AGAIN = NOISY_LABELS._replace(about=f"{NOISY_LABELS.about} The second search", search=1)
SEARCHES = searches(NOISY_LABELS, 10)
# The same trainings, scored by what their validation images really are.
CLEAN = SEARCHES._replace(
    about=f"{SEARCHES.about}, by clean validation labels",
    config=dataclasses.replace(SEARCHES.config, clean_validation=True),
)
# Without wrong labels in the training either.
CLEAN_TRAINING = shorter(searches(question(0), 6))
# A second network, whose gradients cost ten times as much, and whose radii are smaller.
CONVNET = shorter(
    searches(NOISY_LABELS, 6)._replace(
        about=f"{SEARCHES.about}, with BatchNorm",
        config=dataclasses.replace(NOISY_LABELS.config, model="convnet-bn-hidden"),
        rows=methods(FEWER_EPOCHS, SMALLER_RADII),
        trials=12,
    )
)
