"""Pictures of training runs."""

from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

Record = dict[str, float]

# Of Okabe and Ito's palette, which colour-blind readers can tell apart.
TRAINING, TEST = "#0072B2", "#D55E00"


def plot_runs(logs: list[list[Record]], title: str, output: Path) -> None:
    """Saves loss, accuracy, learning rate and α over the epochs, one line for a run."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    figure.suptitle(title)
    panels = {
        "loss": {"loss": TRAINING, "test_loss": TEST},
        "error (%)": {"accuracy": TRAINING, "test_accuracy": TEST},
        "learning rate": {"learning_rate": "black"},
        "α": {"alpha": "black"},
    }
    for axes, (label, curves) in zip(
        figure.subplots(2, 2).flat, panels.items(), strict=True
    ):
        for name, color in curves.items():
            for i, log in enumerate(logs):
                epochs = [record["epoch"] for record in log]
                values = np.array([record[name] for record in log])
                if label == "error (%)":
                    values = 100 * (1 - values)
                who = "test" if name.startswith("test") else "training"
                axes.plot(
                    epochs,
                    values,
                    color=color,
                    alpha=1.0 if len(logs) == 1 else 0.6,
                    marker="." if len(epochs) < 40 else None,
                    label=who if i == 0 else None,
                )
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(frameon=False)
        if label == "α":
            axes.set_ylim(0, 1.05)
    figure.savefig(output, dpi=150)
