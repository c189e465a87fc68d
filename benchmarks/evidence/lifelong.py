"""Question 6: does Lookbehind learn more and forget less? (Table 2)"""

from typing import Any

from benchmarks.evidence.noise import ALPHA
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from examples.lifelong.config import Lifelong

STREAM = Lifelong(dataset="cifar100", model="conv3", classes_per_task=5, k=2)
STREAM_RATE = "learning-rate=log:0.01:0.3"
STREAM_RHO = "rho=log:0.01:0.2"


def learner(label: str, name: str, *space: str, **options: Any) -> Row:
    """A row of question 6."""
    return Row(label, {"methods": (name,), **options}, (STREAM_RATE, *space))


def learners(suffix: str, end: str) -> tuple[Row, ...]:
    """The paper's four methods, with or without replay."""
    return (
        learner(f"SGD{suffix}", f"sgd{end}"),
        learner(f"SAM{suffix}", f"sam{end}", STREAM_RHO),
        learner(f"Lookbehind-SAM{suffix}", f"lookbehind_sam{end}", STREAM_RHO, ALPHA),
        learner(f"Multistep-SAM{suffix}", f"multistep_sam{end}", STREAM_RHO),
    )


QUESTION = Question(
    about="Table 2: does Lookbehind learn more and forget less in a stream of tasks?",
    config=STREAM,
    train=None,
    rows=(
        *learners(", replay", "+replay"),
        learner("SGD, 2 steps, replay", "sgd+replay", glances=2),
        learner("SGD, 3 steps, replay", "sgd+replay", glances=3),
        *learners("", ""),
    ),
    reference="SAM, replay",
    claims=(
        *(
            Claim(f"{text}{ending}.", f"Lookbehind-SAM{suffix}", f"{other}{suffix}")
            for suffix, ending in ((", replay", ", with replay"), ("", ", without"))
            for text, other in (
                ("Lookbehind learns more than SGD", "SGD"),
                ("Lookbehind learns more than SAM", "SAM"),
                ("Lookbehind learns more than Multistep-SAM", "Multistep-SAM"),
            )
        ),
        Claim(
            "A climb pays more than a second step of SGD.",
            "SAM, replay",
            "SGD, 2 steps, replay",
        ),
        Claim(
            "Lookbehind pays more than two more steps of SGD.",
            "Lookbehind-SAM, replay",
            "SGD, 3 steps, replay",
        ),
    ),
    trials=6,
    seeds=5,
    even=True,
)
