"""Question 4: does a climb help a small vision transformer?"""

from typing import Any

from benchmarks.evidence.noise import ALPHA
from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from examples.images.config import Config

VIT = Config(
    dataset="cifar10",
    model="vit-nano",
    epochs=40,
    batch_size=128,
    augment="no",
    base="adamw",
    schedule="cosine",
    warmup=4,
    weight_decay=0.1,
    save_every=780,
    keep=1,
)
ADAM_RATE = "learning-rate=log:0.0003:0.01"
VIT_RHO = "rho=log:0.02:0.5"


def adamw(
    label: str, times: int = 1, optimizer: str = "base", *space: str, **options: Any
) -> Row:
    """A row of question 4."""
    epochs = times * VIT.epochs
    made = {"optimizer": optimizer, "epochs": epochs, **options}
    return Row(label, made, (ADAM_RATE, *space))


QUESTION = Question(
    about="A small vision transformer from scratch, with AdamW",
    config=VIT,
    train=10_000,
    rows=(
        adamw("AdamW"),
        adamw("SAM", 1, "sam", VIT_RHO),
        adamw("Lookbehind-SAM", 1, "lookbehind_sam", VIT_RHO, ALPHA, k=2),
        adamw("AdamW, 2 × the epochs", 2),
        adamw("AdamW, 3 × the epochs", 3),
        adamw(
            "Lookbehind-SAM, reset",
            1,
            "lookbehind_sam",
            VIT_RHO,
            ALPHA,
            k=2,
            pullback="reset",
        ),
        adamw("Multistep-SAM", 1, "multistep_sam", VIT_RHO, k=2),
    ),
    reference="SAM",
    claims=(
        Claim(
            "A climb pays more than a second gradient spent on AdamW.",
            "SAM",
            "AdamW, 2 × the epochs",
        ),
        Claim(
            "Lookbehind pays more than two more gradients spent on AdamW.",
            "Lookbehind-SAM",
            "AdamW, 3 × the epochs",
        ),
        Claim("Lookbehind adds to SAM.", "Lookbehind-SAM", "SAM"),
        Claim(
            "All gradients of the climb are worth more than its last one.",
            "Lookbehind-SAM",
            "Multistep-SAM",
        ),
        Claim(
            "Each step should begin with the moments that the last one began with.",
            "Lookbehind-SAM, reset",
            "Lookbehind-SAM",
        ),
    ),
    trials=6,
    seeds=5,
)
