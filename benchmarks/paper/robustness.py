"""Accuracy with noise in the weights (Figure 4 of the paper).

    python -m benchmarks.paper.robustness --size small

Each weight of a network is multiplied by a draw from N(1, σ²), BatchNorm's statistics
are estimated again on training images, and the network is tested on the first test
images. The picture shows mean and standard deviation over seeds and draws.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import checks
from benchmarks import reports
from benchmarks.paper import trained
from benchmarks.paper.trained import Experiment
from benchmarks.paper.trained import METHODS
from benchmarks.paper.trained import SIZES
from lookbehind_optax import measure

SIGMAS = (0.1, 0.2, 0.3, 0.4, 0.5)
DRAWS = 10
STATISTICS = 50  # training batches that leave 0.5 % of the old statistics


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


def main() -> None:
    """Trains, measures and reports."""
    experiment = tyro.cli(
        Experiment, prog="python -m benchmarks.paper.robustness", description=__doc__
    )
    output = checks.writable(experiment.output / f"robustness_{experiment.size}.json")
    size, dataset = SIZES[experiment.size], trained.load(experiment)
    test = trained.batches(dataset.test, size)
    training = trained.batches(dataset.train, size)[:STATISTICS]
    accuracies = reestimate = None
    methods, revisions = {}, set()
    for method in METHODS:
        clean, found = [], []
        for seed in range(size.seeds):
            network = trained.train(experiment, dataset, method, size.rho, seed)
            revisions.add(network.summary["revision"])
            clean.append(network.summary["final_test_accuracy"])
            if accuracies is None:
                # They read the model and its images' scale, which all networks share.
                accuracies = measure.compiled(network.accuracies)
                reestimate = measure.compiled(network.reestimate)
            noise = measure.weight_noise(
                accuracies,
                network.params,
                test,
                SIGMAS,
                draws=DRAWS,
                statistics=network.batch_stats,
                reestimate=reestimate,
                training_batches=training,
            )
            found.append(noise.values)
        accuracy = np.concatenate(found, axis=1).tolist()  # by σ
        methods[method] = {"clean": clean, "accuracy": accuracy}
    reports.save(
        output,
        "robustness",
        {
            "rho": size.rho,
            "sigmas": SIGMAS,
            "draws": DRAWS,
            "trained_at": sorted(revisions),
            "methods": methods,
        },
    )


if __name__ == "__main__":
    main()
