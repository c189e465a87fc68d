"""The table and the picture of a comparison."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from examples.lifelong import tasks
from examples.lifelong.methods import METHODS
from lookbehind_optax import measure


def table(results: dict[str, Any]) -> str:
    """Average accuracy and forgetting as Markdown, mean ± standard deviation."""
    lines = [
        "| method | replay | average accuracy (%) | forgetting (points) "
        "| gradients in a run | seconds of all runs |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results["methods"].items():
        accuracies = 100 * np.array(found["accuracies"])
        measured = (
            f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
            for values in (
                tasks.average_accuracy(accuracies),
                tasks.forgetting(accuracies),
            )
        )
        method = METHODS[name]
        lines.append(
            f"| {method.title} | {'yes' if method.replay else 'no'} "
            f"| {' | '.join(measured)} | {found['gradients']:,} "
            f"| {found['seconds']:.0f} |"
        )
    return "\n".join(lines)


def title(results: dict[str, Any]) -> str:
    """What was learned, and how often."""
    config = results["config"]
    return (
        "Accuracy on tasks learned one after another\n"
        f"{stream(config)}; n = {config['seeds']} seeds, ± and bars are standard "
        "deviations"
    )


def stream(config: Mapping[str, Any]) -> str:
    """What the tasks are, and what learns them, by the options of a `Lifelong`."""
    epochs = config["epochs"]
    often = "a single pass" if epochs == 1 else f"{epochs} epochs a task"
    glances = config.get("glances", 1)  # older results have none
    if glances > 1:
        often += f", {glances} steps on each batch"
    return (
        f"{config['dataset']}, {config['classes_per_task']} classes a task, "
        f"{config['model']}, {often}"
    )


def figure(results: dict[str, Any]) -> Figure:
    """Draws accuracy over the stream, and at its end by task."""
    groups = {
        "without replay": lambda method: not method.replay,
        "with replay": lambda method: method.replay and not method.meta,
        "C-MAML, with replay": lambda method: method.meta,
    }
    shown = {
        title: names
        for title, belongs in groups.items()
        if (names := [name for name in results["methods"] if belongs(METHODS[name])])
    }
    drawing = Figure(figsize=(1 + 3.6 * len(shown), 6.5), layout="constrained")
    drawing.suptitle(title(results), fontsize="medium")
    rows = drawing.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
    for column, (group, names) in zip(rows.T, shown.items(), strict=True):
        titles = [METHODS[name].title for name in names]
        for i, (name, style) in enumerate(
            zip(names, measure.styles(titles), strict=True)
        ):
            accuracies = 100 * np.array(results["methods"][name]["accuracies"])
            count = accuracies.shape[-1]
            learned = np.arange(1, count + 1)
            # After learning task i, the mean over tasks 1 to i.
            so_far = np.tril(accuracies).sum(axis=-1) / learned
            # Side by side, so that no marker hides another.
            shift = 0.12 * (i - (len(names) - 1) / 2)
            for axes, values in zip(column, (so_far, accuracies[:, -1]), strict=True):
                axes.errorbar(
                    learned + shift,
                    values.mean(axis=0),
                    values.std(axis=0, ddof=1),
                    linewidth=1 if axes is column[0] else 0,
                    elinewidth=1,
                    label=titles[i],
                    **style,
                )
        top, bottom = column
        top.set_title(group)
        bottom.legend(
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.18),
            ncols=2,
            fontsize="small",
        )
        top.set_xlabel("tasks learned")
        bottom.set_xlabel("task")
        bottom.xaxis.get_major_locator().set_params(integer=True)
        for axes in column:
            axes.grid(alpha=0.3)
            axes.tick_params(labelbottom=True)
    for axes in rows.flat:
        axes.set_ylim(top=101)  # no accuracy is beyond, even if a standard deviation is
    rows[0, 0].set_ylabel("mean accuracy on tasks so far (%)")
    rows[1, 0].set_ylabel("accuracy at the end (%)")
    return drawing
