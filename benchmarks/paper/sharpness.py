"""Sharpness over radii at the end of training (Figure 3 of the paper).

    python -m benchmarks.paper.flatness --measure sharpness --size small

The m-sharpness of each method's networks on the first training images, at radii below
and above that of the training, with the largest eigenvalue of the Hessian.
The picture shows the means over the seeds.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import reports
from benchmarks.paper.trained import METHODS
from benchmarks.paper.trained import Networks
from lookbehind_optax import measure

RADII = (0.02, 0.05, 0.1, 0.2, 0.5)
ITERATIONS = 15  # of Lanczos' algorithm


def title(results: dict[str, Any]) -> str:
    """What was measured, and of which networks."""
    n = len(next(iter(results["methods"].values()))["loss"])
    return (
        "Sharpness over radii at the end of training\n"
        f"{results['setting']}, ρ = {results['rho']}; n = {n}, "
        "± is a standard deviation"
    )


def table(results: dict[str, Any]) -> str:
    """A row for each method: mean and standard deviation over its networks."""
    radii = (f"sharpness at {radius}" for radius in results["radii"])
    head = ["method", "training loss", *radii, "largest eigenvalue"]
    rows = [
        [
            method,
            reports.spread(found["loss"]),
            *map(reports.spread, zip(*found["sharpness"], strict=True)),
            reports.spread(found["eigenvalue"]),
        ]
        for method, found in results["methods"].items()
    ]
    return reports.markdown(head, rows)


def figure(results: dict[str, Any]) -> Any:
    """Figure 3: means over the networks of each method."""
    means = {}
    for method, found in results["methods"].items():
        loss, sharpness = np.mean(found["loss"]), np.mean(found["sharpness"], axis=0)
        means[method] = measure.Sharpness(
            *map(jnp.asarray, (results["radii"], loss, loss + sharpness))
        )
    return measure.plot_sharpness(means)


def run(networks: Networks) -> dict[str, Any]:
    """Trains with each seed, and measures; what `table` and `figure` show."""
    size, methods = networks.size, {}
    batches = networks.batches(networks.dataset.train)
    for method in METHODS:
        found = methods[method] = {
            "loss": [],
            "sharpness": [],
            "eigenvalue": [],
            "eigenvalue_error": [],
        }
        for seed in range(size.seeds):
            network = networks.train(method, size.rho, seed)
            at = network.losses, network.params, batches
            around = measure.sharpness(*at, RADII, m=size.batch_size)
            top = measure.hessian_eigenvalues(*at, iterations=ITERATIONS)
            found["loss"].append(float(around.loss))
            found["sharpness"].append(around.sharpness.tolist())
            found["eigenvalue"].append(float(top.values[0]))
            found["eigenvalue_error"].append(float(top.errors[0]))
            jax.clear_caches()  # of its training, whose programs nothing will use again
    return {"rho": size.rho, "radii": RADII, "methods": methods}
