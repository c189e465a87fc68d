"""How flat and how robust trained networks are: Figures 1, 3 and 4 of the paper.

    python -m benchmarks.paper.flatness --measure trade_off --size small
    python -m benchmarks.paper.flatness --measure sharpness --size small
    python -m benchmarks.paper.flatness --measure robustness --size small

Each is about networks trained by SGD, SAM, Multistep-SAM and Lookbehind-SAM with and
without pullback, which the three share: a network is trained once.
"""

from typing import Literal

from benchmarks import reports
from benchmarks.paper import experiment
from benchmarks.paper import robustness
from benchmarks.paper import sharpness
from benchmarks.paper import trade_off
from benchmarks.paper.experiment import Trainings
from benchmarks.paper.sizes import Flatness as Size
from benchmarks.paper.sizes import SIZES
from benchmarks.paper.trained import Networks
from examples.trainer import command
from examples.trainer.command import settings

MEASURES = {
    "trade_off": trade_off.run,
    "sharpness": sharpness.run,
    "robustness": robustness.run,
}


@settings
class Flatness(Trainings):
    """Measure trained networks as a figure of the paper does.

    Two commands:
      python -m benchmarks.paper.flatness
      python -m benchmarks.paper.flatness --measure sharpness --size small

    Attributes:
      measure: trade_off is loss against sharpness over the training radius ρ (Figure
        1), sharpness is that over radii, with the largest eigenvalue of the Hessian
        (Figure 3), and robustness is accuracy with noise in the weights (Figure 4).
    """

    measure: Literal["trade_off", "sharpness", "robustness"] = "trade_off"


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Trains, measures and reports."""
    asked = command.parse(Flatness, "benchmarks.paper.flatness", arguments)
    size = SIZES[asked.size].flatness
    dataset = experiment.load(size.config.dataset, asked.data_dir, size.train)
    networks = Networks(size, dataset, asked.runs / asked.size)
    found = MEASURES[asked.measure](networks)
    reports.save(
        asked.output / f"{asked.measure}_{asked.size}.json",
        asked.measure,
        {
            "setting": setting(size),
            **found,
            "trained_at": sorted(networks.revisions),
        },
    )


def setting(size: Size) -> str:
    """What all networks have in common."""
    config = size.config
    trained = reports.trained(config.dataset, size.train, config.model)
    return f"{trained}, {config.epochs} epochs"


if __name__ == "__main__":
    main()
