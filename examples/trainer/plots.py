"""Pictures of training runs."""

from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

Record = dict[str, float]

# Of Okabe and Ito's palette, which color-blind readers can tell apart.
COLORS = {
    "training": "#0072B2",
    "validation": "#D55E00",
    "test": "#D55E00",
    "wrong labels": "#009E73",
}

# The records' names for the curves in each panel; a run's missing ones are left out.
IMAGES = {
    "loss": ("loss", "valid_loss", "test_loss"),
    "error (%)": ("accuracy", "valid_accuracy", "test_accuracy", "flipped_accuracy"),
    "learning rate": ("learning_rate",),
    "α": ("alpha",),
}
TRANSLATION = {
    "loss": ("loss", "valid_loss"),
    "BLEU": ("valid_bleu",),
    "learning rate": ("learning_rate",),
    "α": ("alpha",),
}


def plot_runs(
    logs: list[list[Record]],
    title: str,
    output: Path,
    panels: dict[str, tuple[str, ...]] = IMAGES,
) -> None:
    """Saves four panels of curves over the epochs, one line for a run."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    figure.suptitle(title)
    for axes, (label, curves) in zip(
        figure.subplots(2, 2).flat, panels.items(), strict=True
    ):
        curves = [name for name in curves if name in logs[0][0]]
        for name in curves:
            color = COLORS[set_of(name)] if len(curves) > 1 else "black"
            for i, log in enumerate(logs):
                epochs = [record["epoch"] for record in log]
                values = np.array([record[name] for record in log])
                if label == "error (%)":
                    values = 100 * (1 - values)
                axes.plot(
                    epochs,
                    values,
                    color=color,
                    alpha=1.0 if len(logs) == 1 else 0.6,
                    marker="." if len(epochs) < 40 else None,
                    label=set_of(name) if i == 0 else None,
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


def set_of(name: str) -> str:
    """The examples that a record's name refers to."""
    sets = {"test": "test", "valid": "validation", "flipped": "wrong labels"}
    return sets.get(name.partition("_")[0], "training")
