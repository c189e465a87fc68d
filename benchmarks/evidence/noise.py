"""Question 1: which method, when labels are wrong?"""

import dataclasses
from typing import Any
from typing import Literal

from benchmarks.evidence.question import Claim
from benchmarks.evidence.question import Options
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from examples.images.config import Config

RATE = "learning-rate=log:0.01:0.3"
RHO = "rho=log:0.05:1"
RHO_ASAM = "rho=log:0.5:10"
ALPHA = "alpha=0.2,0.5,0.8"
EPOCHS = 50
SGD: Options = {"optimizer": "base"}
NOISY = Config(
    dataset="fashion_mnist",
    model="mlp",
    epochs=EPOCHS,
    batch_size=128,
    schedule="cosine",
    momentum=0.9,
    weight_decay=5e-4,
    save_every=1000,
    keep=1,
)


def sgd(times: int) -> Row:
    """SGD for as many gradients as a method whose steps take `times` of them."""
    label = f"SGD, {times} × the epochs" if times > 1 else "SGD"
    return Row(label, {**SGD, "epochs": times * EPOCHS}, (RATE,))


def method(label: str, optimizer: str, *space: str, **options: Any) -> Row:
    """A row that searches the rate, and what else it has."""
    return Row(label, {"optimizer": optimizer, **options}, (RATE, *space))


def lookbehind(label: str, kin: Literal["sam", "asam"], **options: Any) -> Row:
    """Lookbehind, with a searched α unless `alpha` says otherwise."""
    rho = RHO if kin == "sam" else RHO_ASAM
    space = (rho,) if "alpha" in options else (rho, ALPHA)
    return method(label, f"lookbehind_{kin}", *space, k=2, **options)


# In the order in which they are run: the most informative first.
METHODS = (
    sgd(1),
    method("SAM", "sam", RHO),
    lookbehind("Lookbehind-SAM", "sam"),
    lookbehind("Lookbehind-SAM, pullback", "sam", pullback="pullback"),
    method("Multistep-SAM", "multistep_sam", RHO, k=2),
    sgd(2),
    sgd(3),
    method("Lookahead-SAM", "sam", RHO, lookahead=5, lookahead_alpha=0.5),
    method("random direction", "random_sam", RHO),
    method("ASAM", "asam", RHO_ASAM),
    lookbehind("Lookbehind-ASAM", "asam"),
    method("Multistep-SAM, average", "multistep_sam", RHO, k=2, average=True),
    lookbehind("Lookbehind-SAM, adaptive α", "sam", alpha="adaptive"),
    lookbehind(
        "Lookbehind-SAM, adaptive α, pullback",
        "sam",
        alpha="adaptive",
        pullback="pullback",
    ),
    method("GSAM", "gsam", RHO, "alpha=0.1,0.2,0.4"),
    method("WSAM", "wsam", RHO, "gamma=0.5,0.8,0.9"),
    method("Friendly-SAM", "friendly_sam", RHO, "decay=0.6,0.9"),
    lookbehind("Lookbehind-ASAM, pullback", "asam", pullback="pullback"),
    lookbehind("Lookbehind-ASAM, adaptive α", "asam", alpha="adaptive"),
    lookbehind(
        "Lookbehind-ASAM, adaptive α, pullback",
        "asam",
        alpha="adaptive",
        pullback="pullback",
    ),
)
CORE = METHODS[:7]  # those of a second network
LEVELS = (40, 0, 20, 60)  # percent of wrong labels
CLAIMS = (
    Claim(
        "A climb pays more than a second gradient spent on SGD.",
        "SAM",
        "SGD, 2 × the epochs",
    ),
    Claim("The direction of the climb matters.", "SAM", "random direction"),
    Claim("Lookbehind adds to SAM.", "Lookbehind-SAM", "SAM"),
    Claim(
        "Lookbehind pays more than two more gradients spent on SGD.",
        "Lookbehind-SAM",
        "SGD, 3 × the epochs",
    ),
    Claim(
        "All gradients of the climb are worth more than its last one.",
        "Lookbehind-SAM",
        "Multistep-SAM",
    ),
    Claim(
        "Using them one by one is worth more than using their mean.",
        "Lookbehind-SAM",
        "Multistep-SAM, average",
    ),
    Claim(
        "Lookbehind is more than SAM and Lookahead together.",
        "Lookbehind-SAM",
        "Lookahead-SAM",
    ),
    Claim(
        "Pulling the momentum back with the weights helps.",
        "Lookbehind-SAM, pullback",
        "Lookbehind-SAM",
    ),
    Claim(
        "The adaptive α is better than a searched one.",
        "Lookbehind-SAM, adaptive α",
        "Lookbehind-SAM",
    ),
    Claim("Lookbehind adds to ASAM.", "Lookbehind-ASAM", "ASAM"),
)


def claims_about(rows: tuple[Row, ...]) -> tuple[Claim, ...]:
    """The claims about some rows."""
    labels = {row.label for row in rows}
    return tuple(it for it in CLAIMS if {it.row, it.over} <= labels)


def question(percent: int) -> Question:
    """Question 1 at a level of noise; the first one has more rows, and searches."""
    first = percent == LEVELS[0]
    rows = METHODS if first else METHODS[:8]
    return Question(
        about=f"Which method, with {percent} % wrong labels?",
        config=dataclasses.replace(NOISY, label_noise=percent / 100),
        train=10_000,
        rows=rows,
        reference="SAM",
        claims=claims_about(rows),
        searched="" if first else f"noise-{LEVELS[0]}",
    )


CONVNET = Question(
    about="Which method, with 40 % wrong labels and BatchNorm?",
    config=dataclasses.replace(NOISY, model="convnet-bn-hidden", label_noise=0.4),
    train=10_000,
    rows=CORE,
    reference="SAM",
    claims=claims_about(CORE),
    trials=6,
    seeds=5,
)
