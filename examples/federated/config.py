"""The methods that are compared, and the settings of the comparison."""

from collections.abc import Callable
import math
from pathlib import Path
from typing import Annotated
from typing import NamedTuple

import optax
from pydantic import Field
from pydantic import PositiveFloat
from pydantic import PositiveInt

from examples.federated.averaging import Optimizer
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.paths import output_file
import lookbehind_optax as lb


class Method(NamedTuple):
    """An optimizer around SGD.

    Attributes:
      wrap: puts it around SGD.
      learning_rate: of SGD, for each gradient of a step.
      gradients: evaluations that a step costs.
    """

    wrap: Callable[[Optimizer], Optimizer]
    learning_rate: float
    gradients: int

    def optimizer(self) -> Optimizer:
        """A client's optimizer, around SGD with momentum."""
        return self.wrap(optax.sgd(self.learning_rate * self.gradients, momentum=0.9))


METHODS = {
    "SGD": Method(lambda sgd: sgd, 0.08, 1),
    "SAM": Method(lambda sgd: lb.sam(sgd, rho=0.4), 0.05, 2),
    "ASAM": Method(lambda sgd: lb.asam(sgd, rho=1.0), 0.05, 2),
    "Lookbehind-SAM": Method(
        lambda sgd: lb.lookbehind_sam(sgd, rho=0.2, k=2, alpha=0.5), 0.03, 3
    ),
}


# Every method takes whole steps.
UNIT = math.lcm(*(method.gradients for method in METHODS.values()))


@settings
class Config(Settings):
    """Federated averaging with SGD, SAM, ASAM and Lookbehind-SAM on the clients.

    Prints a table of test accuracies, with and without stochastic weight averaging on
    the server, and saves the curves. This takes half a minute on two CPU cores.

    Two commands:
      python -m examples.federated
      python -m examples.federated --concentration 10 --output alike.png

    Attributes:
      clients: number of clients, over which the 1297 training images are split.
      sampled: number of clients that train in a round.
      concentration: concentration of the Dirichlet distribution of each class over the
        clients; the smaller it is, the fewer classes a client has.
      rounds: number of rounds; in the last quarter the server averages its models.
      gradients: gradient evaluations of a client in a round, a multiple of 6.
      batch_size: number of images in a client's batch; no client has fewer images.
      seeds: runs of each method, 2 to 1000.
      output: PNG file of the curves, replaced if it exists.
    """

    clients: Annotated[int, Field(ge=1, le=1297)] = 20
    sampled: PositiveInt = 5
    concentration: PositiveFloat = 0.1
    rounds: Annotated[int, Field(ge=4, le=1_000_000)] = 200  # a quarter of 4 is one
    gradients: Annotated[int, Field(gt=0, multiple_of=UNIT)] = 12
    batch_size: PositiveInt = 10
    seeds: Annotated[int, Field(ge=2, le=1000)] = 10  # so that there is a spread
    output: Annotated[Path, output_file(".png")] = Path("federated.png")


def check(config: Config) -> None:
    """Refuses inconsistent numbers.

    Raises:
      ValueError: if more clients are sampled than there are.
    """
    if config.sampled > config.clients:
        raise ValueError(
            f"--sampled must be at most the number of --clients, {config.clients}; "
            f"got {config.sampled}"
        )
