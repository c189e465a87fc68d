"""Accuracy with noise in the weights (Figure 4 of the paper).

    python -m benchmarks.paper.flatness --measure robustness --size small

Each weight of a network is multiplied by a draw from N(1, σ²), BatchNorm's statistics
are estimated again on training images, and the network is tested on the first test
images. The picture shows mean and standard deviation over seeds and draws.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks import reports
from benchmarks.paper.trained import METHODS
from benchmarks.paper.trained import Networks
from benchmarks.paper.trained import Trained
from lookbehind_optax import measure

SIGMAS = (0.1, 0.2, 0.3, 0.4, 0.5)
DRAWS = 10
STATISTICS = 50  # training batches that leave 0.5 % of the old statistics


def title(results: dict[str, Any]) -> str:
    """What was measured, and of which networks."""
    n = len(next(iter(results["methods"].values()))["clean"])
    return (
        "Accuracy with noise in the weights\n"
        f"{results['setting']}, ρ = {results['rho']}; n = {n} networks, with "
        f"{results['draws']} draws each; ± and bands are standard deviations"
    )


def table(results: dict[str, Any]) -> str:
    """A row for each method: mean and standard deviation over networks and draws."""
    sigmas = (f"σ = {sigma}" for sigma in results["sigmas"])
    head = ["method", "clean, all test images", *sigmas]
    rows = [
        [
            method,
            reports.spread(100 * np.array(found["clean"])),
            *(reports.spread(100 * np.array(row)) for row in found["accuracy"]),
        ]
        for method, found in results["methods"].items()
    ]
    return reports.markdown(head, rows)


def figure(results: dict[str, Any]) -> Any:
    """Figure 4: a line for each method."""
    sigmas = jnp.array(results["sigmas"])
    noise = {
        method: measure.WeightNoise(sigmas, 100 * np.array(found["accuracy"]))
        for method, found in results["methods"].items()
    }
    return measure.plot_noise(noise, label="test accuracy (%)")


def functions(network: Trained) -> tuple[Any, Any]:
    """What measures accuracies and re-estimates statistics, if there are any."""
    if network.batch_stats:
        return measure.compiled(network.accuracies), measure.compiled(
            network.reestimate
        )

    def accuracies(params, images, labels):
        return network.accuracies(params, {}, images, labels)

    return measure.compiled(accuracies), None


def run(networks: Networks) -> dict[str, Any]:
    """Trains with each seed, and measures; what `table` and `figure` show."""
    size, dataset = networks.size, networks.dataset
    test = networks.batches(dataset.test)
    training = networks.batches(dataset.train)[:STATISTICS]
    accuracies = reestimate = None
    methods = {}
    for method in METHODS:
        clean, found = [], []
        for seed in range(size.seeds):
            network = networks.train(method, size.rho, seed)
            clean.append(network.summary["final_test_accuracy"])
            if accuracies is None:
                # They read the model and its images' scale, which all networks share.
                accuracies, reestimate = functions(network)
            statistics: dict[str, Any] = {}
            if reestimate:
                statistics = {
                    "statistics": network.batch_stats,
                    "reestimate": reestimate,
                    "training_batches": training,
                }
            noise = measure.weight_noise(
                accuracies,
                network.params,
                test,
                SIGMAS,
                draws=DRAWS,
                **statistics,
            )
            found.append(noise.values)
        accuracy = np.concatenate(found, axis=1).tolist()  # by σ
        methods[method] = {"clean": clean, "accuracy": accuracy}
    return {"rho": size.rho, "sigmas": SIGMAS, "draws": DRAWS, "methods": methods}
