"""Accuracy with noise in the weights (Figure 4 of the paper).

    python -m benchmarks.robustness --size small

Each weight of a network is multiplied by a draw from N(1, σ²), BatchNorm's statistics
are estimated anew on training images, and the network is tested on the first test
images. The picture shows mean and standard deviation over seeds and draws.
"""

import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import reports
from benchmarks import trained
from benchmarks.trained import Experiment
from benchmarks.trained import METHODS
from benchmarks.trained import SIZES
from lookbehind_optax import measure

SIGMAS = (0.1, 0.2, 0.3, 0.4, 0.5)
DRAWS = 10
STATISTICS = 50  # training batches that leave 0.5 % of the old statistics


def main() -> None:
    """Trains, measures and reports."""
    experiment = tyro.cli(
        Experiment, prog="python -m benchmarks.robustness", description=__doc__
    )
    size, dataset = SIZES[experiment.size], trained.load(experiment)
    test = trained.batches(dataset.test, size)
    training = trained.batches(dataset.train, size)[:STATISTICS]
    results, joined, rows, revisions = {}, {}, [], set()
    for method in METHODS:
        found, clean = [], []
        for seed in range(size.seeds):
            network = trained.train(experiment, dataset, method, size.rho, seed)
            revisions.add(network.summary["revision"])
            clean.append(network.summary["final_test_accuracy"])
            noise = measure.weight_noise(
                network.accuracies,
                network.params,
                test,
                SIGMAS,
                draws=DRAWS,
                statistics=network.batch_stats,
                reestimate=network.reestimate,
                training_batches=training,
            )
            found.append(noise.values)
        values = 100 * np.concatenate(found, axis=1, dtype=np.float64)
        results[method] = {"clean": clean, "accuracy": values.tolist()}
        joined[method] = measure.WeightNoise(jnp.array(SIGMAS), values)
        rows.append(
            [
                method,
                reports.spread(100 * np.array(clean)),
                *(reports.spread(row) for row in values),
            ]
        )
    head = ["method", "clean, all test images", *(f"σ = {sigma}" for sigma in SIGMAS)]
    reports.save(
        experiment.output,
        f"robustness_{experiment.size}",
        {
            "rho": size.rho,
            "sigmas": SIGMAS,
            "seeds": size.seeds,
            "trained_at": sorted(revisions),
            "methods": results,
        },
        reports.markdown(head, rows),
        measure.plot_noise(joined, label="test accuracy (%)"),
    )


if __name__ == "__main__":
    main()
