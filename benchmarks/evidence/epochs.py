"""Question 3's third part: does a climb pay once the number of epochs is searched?"""

import dataclasses

from benchmarks.evidence.noise import method
from benchmarks.evidence.noise import NOISY
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Question

# No choice takes more gradients than 50 epochs of SGD, to within 2 %.
ALONE = "epochs=3,6,12,25,50"
TWICE = "epochs=3,6,12,25"
THRICE = "epochs=2,4,8,17"
# SAM's radius is k times that of Lookbehind and Multistep-SAM.
RADIUS = "rho=log:0.05:0.5"
HALF_RADIUS = "rho=log:0.025:0.25"

LEVELS = (40, 0)  # percent of wrong labels


def question(percent: int) -> Question:
    """One search with wrong labels or without."""
    return Question(
        about=f"Which method, with {percent} % wrong labels and searched epochs?",
        config=dataclasses.replace(NOISY, label_noise=percent / 100),
        train=10_000,
        rows=(
            method("SGD", "base", ALONE),
            method("SAM", "sam", TWICE, RADIUS),
            method(
                "Lookbehind-SAM",
                "lookbehind_sam",
                THRICE,
                HALF_RADIUS,
                k=2,
                alpha=0.5,
            ),
            method("Multistep-SAM", "multistep_sam", THRICE, HALF_RADIUS, k=2),
        ),
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


NOISY_LABELS = question(40)
AGAIN = NOISY_LABELS._replace(about=f"{NOISY_LABELS.about} The second search", search=1)
# The first two searches are those of the questions above.
SEARCHES = NOISY_LABELS._replace(
    about=f"{NOISY_LABELS.about} A search for each seed", searches=10
)
# The same trainings, scored by what their validation images really are.
CLEAN = SEARCHES._replace(
    about=f"{SEARCHES.about}, by clean validation labels",
    config=dataclasses.replace(SEARCHES.config, clean_validation=True),
)
