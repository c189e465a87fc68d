"""The table and the picture of a comparison."""

import math

import jax
from matplotlib.figure import Figure
import numpy as np

from examples.federated.config import Config
from lookbehind_optax import measure


def print_table(
    config: Config, curves: dict[str, np.ndarray], seconds: dict[str, float]
) -> None:
    """Prints each method's final accuracies, what it gains over SGD, and its cost."""
    print(
        f"\nDevice: {jax.devices()[0].device_kind}; n = {config.seeds} seeds. Test "
        "accuracy in % after the last round:\nmean ± standard deviation; with SWA, "
        "over SGD: mean difference on the same seed ±\nits standard error. Gradient "
        "evaluations are those of one run, seconds those of all n.\n"
    )
    print(
        f"{'Method':<14}  {'Server':>12}  {'With SWA':>12}  {'Over SGD':>12}  "
        "Gradients  Seconds"
    )
    gradients = config.rounds * config.sampled * config.gradients
    for name, curve in curves.items():
        server, average = curve[:, -1].T
        gain = average - curves["SGD"][:, -1, 1]
        print(
            f"{name:<14}  {server.mean():5.2f} ± {server.std(ddof=1):4.2f}  "
            f"{average.mean():5.2f} ± {average.std(ddof=1):4.2f}  "
            f"{gain.mean():+5.2f} ± {gain.std(ddof=1) / math.sqrt(len(gain)):4.2f}  "
            f"{gradients:9}  {seconds[name]:7.1f}"
        )


def plot(config: Config, curves: dict[str, np.ndarray]) -> None:
    """Saves the mean test errors over the rounds, and those of SWA, larger."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    rounds = np.arange(1, config.rounds + 1)
    late = rounds > config.rounds - config.rounds // 4
    for style, (name, curve) in zip(
        measure.styles(curves), curves.items(), strict=True
    ):
        color = style["color"]
        server, average = 100 - curve.mean(axis=0).T
        error = curve[..., 1].std(axis=0, ddof=1) / math.sqrt(config.seeds)
        left.plot(rounds, server, color=color, linewidth=1, label=name)
        right.plot(rounds[late], server[late], color=color, linewidth=1, alpha=0.5)
        right.plot(rounds[late], average[late], color=color, linewidth=2.5)
        band = (average - error)[late], (average + error)[late]
        right.fill_between(rounds[late], *band, color=color, alpha=0.12, linewidth=0)
    left.set_yscale("log")
    bottom, top = left.get_ylim()
    ticks = [t for t in (1, 2, 3, 4, 6, 10, 20, 30, 40, 60, 80) if bottom <= t <= top]
    left.set_yticks(ticks, [str(tick) for tick in ticks])
    left.minorticks_off()
    left.set_ylabel("test error (%), log scale")
    left.set_title("The server's model")
    left.legend(frameon=False)
    right.set_ylabel("test error (%)")
    right.set_title("Last quarter; bold: SWA, ± standard error")
    for axes in (left, right):
        axes.set_xlabel("round")
        axes.grid(alpha=0.3)
    figure.suptitle(
        f"Digits, Dirichlet({config.concentration:g}) over {config.clients} "
        f"clients, {config.sampled} in a round; mean over n = {config.seeds} seeds"
    )
    config.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(config.output, dpi=150)
