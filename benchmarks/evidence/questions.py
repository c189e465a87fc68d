"""What the evidence is to answer: for each question its rows, its claims, its runs.

docs/protocol.md has the rules in words. Both were committed before the first run.
"""

import dataclasses
from typing import Any
from typing import Literal
from typing import NamedTuple

from examples.images.config import Config
from examples.images.config import RECIPES

Options = dict[str, Any]
Space = tuple[str, ...]


class Row(NamedTuple):
    """One way to train.

    Attributes:
      label: of the row.
      options: options of the trainer, beyond the question's.
      space: what is searched, as `--space` of examples.search says it.
      line: in a picture over a number, the line that the row belongs to.
      x: the number.
    """

    label: str
    options: Options
    space: Space = ()
    line: str = ""
    x: float = 0.0


class Claim(NamedTuple):
    """That one row has the higher final test accuracy of two.

    Attributes:
      text: the claim.
      row: label of the row that should be above.
      over: label of the row that should be below.
    """

    text: str
    row: str
    over: str


class Question(NamedTuple):
    """A setting, and what is compared in it.

    Attributes:
      about: what is asked.
      config: of every training.
      train: number of training examples, the first of the dataset.
      rows: the ways to train; the first is what gradients are counted by.
      reference: label of the row that the table's differences are from.
      claims: what would follow from the answer.
      trials: of each row that searches.
      seeds: runs of each row with its best parameters.
      searched: question whose search chose the parameters, if it isn't this one.
      x: what the number of a picture's rows is; a table's have none.
    """

    about: str
    config: Config
    train: int
    rows: tuple[Row, ...]
    reference: str
    claims: tuple[Claim, ...]
    trials: int = 10
    seeds: int = 10
    searched: str = ""
    x: str = ""


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


# In the order in which they are run: what tells most comes first.
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
        "Lookbehind makes more of two climbs than their last gradient does.",
        "Lookbehind-SAM",
        "Multistep-SAM",
    ),
    Claim(
        "Lookbehind makes more of two climbs than their mean gradient does.",
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


def noise(percent: int) -> Question:
    """Question 1 at a level of noise; only the first level searches."""
    return Question(
        about=f"Which method, with {percent} % wrong labels?",
        config=dataclasses.replace(NOISY, label_noise=percent / 100),
        train=10_000,
        rows=METHODS,
        reference="SAM",
        claims=CLAIMS,
        searched="" if percent == LEVELS[0] else f"noise-{LEVELS[0]}",
    )


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
    """The ways to climb in a share of the training, by what they are called."""
    name = NAMES[label]
    own = UNTUNED[label]
    ends = (f"base until {1 - share:g}", f"{name} until 1")
    starts = (f"{name} until {share:g}", "base until 1")
    return {
        "late, own anneal": {**own, "phases": ends, "anneal": "each"},
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


def price(percent: int) -> Question:
    """Question 3, with or without wrong labels."""
    return Question(
        about=f"Lookbehind at the price of SGD, with {percent} % wrong labels?",
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


RANGE = Question(
    about="How wide is the range of ρ and k, with 40 % wrong labels?",
    config=dataclasses.replace(NOISY, learning_rate=0.1, label_noise=0.4),
    train=10_000,
    rows=grid(),
    reference="SGD",
    claims=(),
    seeds=3,
    x="ρ",
)

LENGTHS = (30, 200)  # epochs


def recipes(epochs: int) -> tuple[Row, ...]:
    """Question 5's rows, in the order in which they are run."""
    behind: Options = {"optimizer": "lookbehind_sam", "rho": 0.05}
    late_phases = ("base until 0.7", "lookbehind_sam until 1")
    rows = [Row("SGD", SGD), Row("SAM", {"optimizer": "sam", "rho": 0.05})]
    for k in KS:
        own = {**behind, "k": k, "alpha": 1 / k}
        rows.append(Row(f"Lookbehind-SAM, k = {k}", own))
        rows.append(
            Row(f"Lookbehind-SAM, pullback, k = {k}", {**own, "pullback": "pullback"})
        )
    late_options = {"rho": 0.05, "k": 2, "alpha": 0.5, "phases": late_phases}
    rows.append(Row("Lookbehind-SAM, late, k = 2", {**late_options, "anneal": "each"}))
    for times in (2, 3, 6):
        longer = {**SGD, "epochs": times * epochs}
        rows.append(Row(f"SGD, {times} × the epochs", longer))
    return tuple(rows)


def cifar(epochs: int) -> Question:
    """Question 5, with a cosine in place of the steps of the paper's recipe.

    A phase can have a cosine of its own, however short it is.
    """
    recipe = {**RECIPES["cifar"], "epochs": epochs, "schedule": "cosine"}
    return Question(
        about=f"Which method, on CIFAR-10 with the paper's recipe, {epochs} epochs?",
        config=Config(
            **{**recipe, "model": "wrn-16-4", "precision": "bf16", "keep": 1}
        ),
        train=50_000,
        rows=recipes(epochs),
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


QUESTIONS: dict[str, Question] = {
    **{f"noise-{percent}": noise(percent) for percent in LEVELS},
    **{f"price-{percent}": price(percent) for percent in (40, 0)},
    "range": RANGE,
    **{f"cifar-{epochs}": cifar(epochs) for epochs in LENGTHS},
}
