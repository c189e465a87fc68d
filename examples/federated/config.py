"""The methods that are compared, and what the comparison is told."""

from collections.abc import Callable
import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import optax

from examples.federated.averaging import Optimizer
import lookbehind_optax as lb


class Method(NamedTuple):
    """An optimizer around SGD.

    Attributes:
      wrap: puts it around SGD.
      learning_rate: of SGD, for each gradient of a step.
      gradients: evaluations that a step costs.
      color: in the plot, of Okabe and Ito's palette, which colour-blind readers can
        tell apart.
    """

    wrap: Callable[[Optimizer], Optimizer]
    learning_rate: float
    gradients: int
    color: str

    def optimizer(self) -> Optimizer:
        """Of a client, with momentum."""
        return self.wrap(optax.sgd(self.learning_rate * self.gradients, momentum=0.9))


METHODS = {
    "SGD": Method(lambda sgd: sgd, 0.08, 1, "#000000"),
    "SAM": Method(lambda sgd: lb.sam(sgd, rho=0.4), 0.05, 2, "#0072B2"),
    "ASAM": Method(lambda sgd: lb.asam(sgd, rho=1.0), 0.05, 2, "#E69F00"),
    "Lookbehind-SAM": Method(
        lambda sgd: lb.lookbehind_sam(sgd, rho=0.2, k=2, alpha=0.5), 0.03, 3, "#D55E00"
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Federated averaging with SGD, SAM, ASAM and Lookbehind-SAM on the clients.

    Prints a table of test accuracies, with and without stochastic weight averaging on
    the server, and saves the curves. This takes half a minute on two CPU cores.

    Attributes:
      clients: among which the 1297 training images are split.
      sampled: clients that train in a round.
      concentration: of the Dirichlet distribution of each class over the clients; the
        smaller it is, the fewer classes a client has.
      rounds: in the last quarter of them the server averages its models.
      gradients: evaluations that a client spends in a round, a multiple of 6.
      batch_size: images in a batch of a client; every client has as many, at least.
      seeds: runs of each method, 2 or more.
      output: PNG file of the curves, replaced if it exists.
    """

    clients: int = 20
    sampled: int = 5
    concentration: float = 0.1
    rounds: int = 200
    gradients: int = 12
    batch_size: int = 10
    seeds: int = 10
    output: Path = Path("federated.png")


def check(config: Config) -> None:
    """Refuses now what would fail after the training."""
    if not 1 <= config.sampled <= config.clients:
        raise ValueError(
            f"--sampled must be from 1 to the {config.clients} clients that there are; "
            f"got {config.sampled}"
        )
    if config.rounds < 4:
        raise ValueError(
            "--rounds must be at least 4, so that a quarter of them is one; "
            f"got {config.rounds}"
        )
    # Every method takes whole steps.
    unit = math.lcm(*(method.gradients for method in METHODS.values()))
    if config.gradients < 1 or config.gradients % unit:
        raise ValueError(
            f"--gradients must be a positive multiple of {unit}, so that every method "
            f"can spend exactly that many; got {config.gradients}"
        )
    if config.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1; got {config.batch_size}")
    if config.seeds < 2:
        raise ValueError(
            "--seeds must be at least 2, so that there is a spread to show; "
            f"got {config.seeds}"
        )
    if config.output.suffix.lower() != ".png" or not config.output.parent.is_dir():
        raise ValueError(
            f"--output must be a .png file in a folder that exists; got {config.output}"
        )
