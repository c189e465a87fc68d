"""Loss against sharpness over the training radius ρ (Figure 1 of the paper).

    python -m benchmarks.paper.flatness --measure trade_off --size small

A larger ρ makes SAM's solutions flatter at the price of a higher training loss. The
question is whether Lookbehind has less of one for the same value of the other. Loss and
m-sharpness are those of the first training images, in evaluation mode; all networks are
measured at one radius, whatever they were trained with.
"""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import reports
from benchmarks.paper.trained import METHODS
from benchmarks.paper.trained import Networks
from lookbehind_optax import measure

RADIUS = 0.1  # at which the sharpness is measured


def title(results: dict[str, Any]) -> str:
    """What was measured, and of which networks."""
    return (
        "Training loss against sharpness, at each training radius ρ\n"
        f"{results['setting']}; sharpness at {results['radius']}; one seed a point"
    )


def table(results: dict[str, Any]) -> str:
    """A row for each network."""
    head = ["method", "ρ", "training loss", f"sharpness at {results['radius']}"]
    head += ["test accuracy (%)", "gradients"]
    rows = [
        [
            point["method"],
            f"{point['rho']:g}",
            f"{point['loss']:.4f}",
            f"{point['sharpness']:.4f}",
            f"{100 * point['test_accuracy']:.2f}",
            f"{point['gradients']:,}",
        ]
        for point in results["points"]
    ]
    return reports.markdown(head, rows)


def figure(results: dict[str, Any]) -> Any:
    """Figure 1: a line for each method, a point for each ρ."""
    lines: dict[str, dict[float, measure.Sharpness]] = {}
    for point in results["points"]:
        perturbed = point["loss"] + point["sharpness"]
        lines.setdefault(point["method"], {})[point["rho"]] = measure.Sharpness(
            jnp.array([results["radius"]]),
            jnp.array(point["loss"]),
            jnp.array([perturbed]),
        )
    drawn = measure.plot_trade_off(lines)
    drawn.axes[0].set_yscale("log")  # from a memorized set to one hardly learned
    return drawn


def run(networks: Networks) -> dict[str, Any]:
    """Trains with each ρ, and measures; what `table` and `figure` show."""
    size, points = networks.size, []
    batches = networks.batches(networks.dataset.train)
    for method in METHODS:
        for rho in size.rhos if method != "SGD" else (0.0,):
            network = networks.train(method, rho, seed=0)
            found = measure.sharpness(
                network.losses, network.params, batches, RADIUS, m=size.batch_size
            )
            points.append(
                {
                    "method": method,
                    "rho": rho,
                    "loss": float(found.loss),
                    "sharpness": float(found.sharpness[0]),
                    "test_accuracy": network.summary["final_test_accuracy"],
                    "gradients": network.summary["gradient_evaluations"],
                }
            )
            jax.clear_caches()  # of its training, whose programs nothing will use again
    return {"radius": RADIUS, "points": points}
