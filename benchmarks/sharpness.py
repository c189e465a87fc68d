"""Sharpness over radii at the end of training (Figure 3 of the paper).

    python -m benchmarks.sharpness --size small

The m-sharpness of each method's networks on the first training images, at radii below
and above that of the training, with the largest eigenvalue of the Hessian beside it.
The picture shows the means over the seeds.
"""

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import reports
from benchmarks import trained
from benchmarks.trained import Experiment
from benchmarks.trained import METHODS
from benchmarks.trained import SIZES
from lookbehind_optax import measure

RADII = (0.02, 0.05, 0.1, 0.2, 0.5)
ITERATIONS = 15  # of Lanczos' algorithm


def main() -> None:
    """Trains, measures and reports."""
    experiment = tyro.cli(
        Experiment, prog="python -m benchmarks.sharpness", description=__doc__
    )
    size, dataset = SIZES[experiment.size], trained.load(experiment)
    batches = trained.batches(dataset.train, size)
    results, means, rows, revisions = {}, {}, [], set()
    for method in METHODS:
        found = []
        for seed in range(size.seeds):
            network = trained.train(experiment, dataset, method, size.rho, seed)
            revisions.add(network.summary["revision"])
            at = network.losses, network.params, batches
            around = measure.sharpness(*at, RADII, m=size.batch_size)
            top = measure.hessian_eigenvalues(*at, iterations=ITERATIONS)
            found.append((around, top))
            jax.clear_caches()  # of the network's losses, which nothing will use again
        sharpness = np.array([around.sharpness for around, _ in found], np.float64)
        eigenvalues = np.array([top.values[0] for _, top in found], np.float64)
        errors = np.array([top.errors[0] for _, top in found], np.float64)
        losses = np.array([around.loss for around, _ in found], np.float64)
        results[method] = {
            "loss": losses.tolist(),
            "sharpness": sharpness.tolist(),
            "eigenvalue": eigenvalues.tolist(),
            "eigenvalue_error": errors.tolist(),
        }
        mean = losses.mean() + sharpness.mean(axis=0)
        means[method] = measure.Sharpness(
            *map(jnp.asarray, (RADII, losses.mean(), mean))
        )
        rows.append(
            [
                method,
                *(reports.spread(column) for column in sharpness.T),
                reports.spread(eigenvalues),
            ]
        )
    head = ["method", *(f"sharpness at {radius}" for radius in RADII)]
    reports.save(
        experiment.output,
        f"sharpness_{experiment.size}",
        {
            "rho": size.rho,
            "radii": RADII,
            "seeds": size.seeds,
            "trained_at": sorted(revisions),
            "methods": results,
        },
        reports.markdown([*head, "largest eigenvalue"], rows),
        measure.plot_sharpness(means),
    )


if __name__ == "__main__":
    main()
