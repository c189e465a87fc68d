"""Loss against sharpness over the training radius ρ (Figure 1 of the paper).

    python -m benchmarks.trade_off --size small

A larger ρ makes SAM's solutions flatter at the price of a higher training loss. The
question is whether Lookbehind has less of the one for the same of the other. Loss and
m-sharpness are those of the first training images, in evaluation mode; all networks are
measured at one radius, whatever they were trained with.
"""

import jax
import tyro

from benchmarks import reports
from benchmarks import trained
from benchmarks.trained import Experiment
from benchmarks.trained import METHODS
from benchmarks.trained import SIZES
from lookbehind_optax import measure

RADIUS = 0.1  # at which the sharpness is measured


def main() -> None:
    """Trains, measures and reports."""
    experiment = tyro.cli(
        Experiment, prog="python -m benchmarks.trade_off", description=__doc__
    )
    size, dataset = SIZES[experiment.size], trained.load(experiment)
    batches = trained.batches(dataset.train, size)
    results, rows, revisions = {}, [], set()
    for method in METHODS:
        results[method] = {}
        for rho in size.rhos if method != "SGD" else (0.0,):
            network = trained.train(experiment, dataset, method, rho, seed=0)
            revisions.add(network.summary["revision"])
            found = measure.sharpness(
                network.losses, network.params, batches, RADIUS, m=size.batch_size
            )
            results[method][rho] = found
            rows.append(
                [
                    method,
                    f"{rho:g}",
                    f"{found.loss:.4f}",
                    f"{found.sharpness[0]:.4f}",
                    f"{100 * network.summary['final_test_accuracy']:.2f}",
                    f"{network.summary['gradient_evaluations']:,}",
                ]
            )
            jax.clear_caches()  # of the network's losses, which nothing will use again
    head = ["method", "ρ", "training loss", f"sharpness at {RADIUS}"]
    head += ["test accuracy (%)", "gradients"]
    reports.save(
        experiment.output,
        f"trade_off_{experiment.size}",
        {
            "radius": RADIUS,
            "trained_at": sorted(revisions),
            "loss_and_sharpness": {
                method: {
                    f"{rho:g}": [float(found.loss), float(found.sharpness[0])]
                    for rho, found in points.items()
                }
                for method, points in results.items()
            },
        },
        reports.markdown(head, rows),
        measure.plot_trade_off(results),
    )


if __name__ == "__main__":
    main()
