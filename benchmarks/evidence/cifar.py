"""Question 5: which method, in the paper's own regime?"""

from benchmarks.evidence.noise import CLAIMS
from benchmarks.evidence.noise import SGD
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Options
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from examples.images.config import Config
from examples.images.config import RECIPES

KS = (2, 5)
LENGTHS = (30, 200)  # epochs


def rows(epochs: int) -> tuple[Row, ...]:
    """The rows, in the order in which they are run."""
    behind: Options = {"optimizer": "lookbehind_sam", "rho": 0.05}
    late_phases = ("base until 0.7", "lookbehind_sam until 1")
    found = [Row("SGD", SGD), Row("SAM", {"optimizer": "sam", "rho": 0.05})]
    for k in KS:
        own = {**behind, "k": k, "alpha": 1 / k}
        found.append(Row(f"Lookbehind-SAM, k = {k}", own))
        found.append(
            Row(f"Lookbehind-SAM, pullback, k = {k}", {**own, "pullback": "pullback"})
        )
    late_options = {"rho": 0.05, "k": 2, "alpha": 0.5, "phases": late_phases}
    found.append(Row("Lookbehind-SAM, late, k = 2", {**late_options, "anneal": "each"}))
    for times in (2, 3, 6):
        longer = {**SGD, "epochs": times * epochs}
        found.append(Row(f"SGD, {times} × the epochs", longer))
    return tuple(found)


def question(epochs: int) -> Question:
    """The paper's recipe, with a cosine in place of its steps.

    A phase can have a cosine of its own, however short it is.
    """
    recipe = {**RECIPES["cifar"], "epochs": epochs, "schedule": "cosine"}
    return Question(
        about=f"Which method, on CIFAR-10 with the paper's recipe, {epochs} epochs?",
        config=Config(
            **{**recipe, "model": "wrn-16-4", "precision": "bf16", "keep": 1}
        ),
        train=50_000,
        rows=rows(epochs),
        reference="SAM",
        claims=(
            Claim(CLAIMS[0].text, "SAM", "SGD, 2 × the epochs"),
            Claim(CLAIMS[2].text, "Lookbehind-SAM, k = 2", "SAM"),
            Claim(CLAIMS[3].text, "Lookbehind-SAM, k = 2", "SGD, 3 × the epochs"),
            Claim(
                CLAIMS[7].text,
                "Lookbehind-SAM, pullback, k = 2",
                "Lookbehind-SAM, k = 2",
            ),
            Claim(
                "Late climbs alone pay more than a second gradient spent on SGD.",
                "Lookbehind-SAM, late, k = 2",
                "SGD, 2 × the epochs",
            ),
        ),
        seeds=3,
    )
