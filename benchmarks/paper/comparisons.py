"""How good: the paper's tables and figures that compare ways to train.

    python -m benchmarks.paper.comparisons --question table-1 --size small

Finished runs aren't repeated, even if another question asked for them. Interrupted runs
are resumed. A failed run is reported, and the others continue.
"""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure
import numpy as np
from scipy import stats
from tqdm import tqdm

from benchmarks import reports
from benchmarks.paper import experiment
from benchmarks.paper.experiment import Trainings
from benchmarks.paper.questions import configure
from benchmarks.paper.questions import Name
from benchmarks.paper.questions import Question
from benchmarks.paper.questions import QUESTIONS
from benchmarks.paper.questions import Row
from benchmarks.paper.sizes import Setting
from benchmarks.paper.sizes import SIZES
from examples.images import data
from examples.images.config import Config
from examples.trainer import command
from examples.trainer.command import settings
from lookbehind_optax import measure

REFERENCE = "SAM"  # differences and p-values are against it


@settings
class Comparison(Trainings):
    """Compare ways to train, as a table or figure of the paper does.

    Two commands:
      python -m benchmarks.paper.comparisons
      python -m benchmarks.paper.comparisons --question figure-5 --size small

    Attributes:
      question: a table or figure of the paper, or price, which is Lookbehind-SAM on the
        parts of a minibatch. benchmarks/paper/questions.py says what each asks.
    """

    question: Name = "table-1"


def folder_name(config: Config, setting: Setting) -> str:
    """Identifies a run among all of a setting, by its options beyond the setting's."""
    options = [
        f"{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(setting.config, field.name)
    ]
    return "_".join(options).replace(" ", "-").replace("/", "-")


def run(config: Config, dataset: data.Dataset, folder: Path) -> dict[str, Any]:
    """Trains, or reads the finished run; adds the log to the summary."""
    _, summary = experiment.train(config, dataset, folder)
    lines = (folder / "log.jsonl").read_text().splitlines()
    jax.clear_caches()  # of functions that no other run will use
    return {"summary": summary, "log": [json.loads(line) for line in lines]}


def compare(
    question: Question, setting: Setting, dataset: data.Dataset, folder: Path
) -> list[dict[str, Any]]:
    """Runs every row with every seed; a failed run gives its reason."""
    rows = question.rows(setting)
    cells = [(row, seed) for seed in range(setting.seeds) for row in rows]
    found = {row.label: [] for row in rows}
    for row, seed in (progress := tqdm(cells, unit="run")):
        progress.set_description(f"{row.label}, seed {seed}")
        config = configure(setting, question, row)
        name = folder_name(config, setting) or "setting"
        config = dataclasses.replace(config, seed=seed)
        try:
            cell = run(config, dataset, folder / name / f"seed-{seed}")
        except command.Stopped:
            raise
        except Exception as error:  # of any kind: the other runs continue
            tqdm.write(f"{row.label}, seed {seed}, failed: {error}")
            cell = {"failed": f"{type(error).__name__}: {error}"}
        found[row.label].append({"seed": seed, **cell})
    return [describe(row, found[row.label], setting) for row in rows]


def describe(row: Row, cells: list[dict[str, Any]], setting: Setting) -> dict[str, Any]:
    """A row of the JSON."""
    done = [cell for cell in cells if "failed" not in cell]
    described = {
        **row._asdict(),
        "failed": {cell["seed"]: cell["failed"] for cell in cells if "failed" in cell},
        "seeds": [cell["seed"] for cell in done],
        "revisions": sorted({cell["summary"]["revision"] for cell in done}),
    }
    if not done:
        return described
    first = done[0]["summary"]
    # Of whole minibatches, whatever the size of those that the row takes.
    whole = first["config"]["batch_size"] / setting.config.batch_size
    return {
        **described,
        "epochs": first["config"]["epochs"],
        "gradients": first["gradient_evaluations"] * whole,
        "seconds": [cell["summary"]["wall_seconds"] for cell in done],
        "accuracy": [cell["summary"]["final_test_accuracy"] for cell in done],
        "accuracy_by_epoch": curves(done, "test_accuracy"),
        "alpha_by_epoch": curves(done, "alpha"),
    }


def curves(cells: list[dict[str, Any]], name: str) -> list[list[float]]:
    """A value of the logs, for each seed over the epochs."""
    return [[record[name] for record in cell["log"]] for cell in cells]


def differences(row: dict[str, Any], reference: dict[str, Any]) -> np.ndarray:
    """Points of accuracy above the reference, for the seeds that both have."""
    theirs = dict(zip(reference["seeds"], reference["accuracy"], strict=True))
    ours = zip(row["seeds"], row["accuracy"], strict=True)
    return 100 * np.array([acc - theirs[seed] for seed, acc in ours if seed in theirs])


def p_value(difference: np.ndarray) -> str:
    """The two-sided p-value of Student's paired t-test."""
    if len(difference) < 2 or np.ptp(difference) == 0:
        return "–"
    _, p = stats.ttest_1samp(difference, 0.0)
    return f"{p:.2g}"


def gradients_until(row: dict[str, Any], accuracy: float) -> float | None:
    """Gradients until the mean over the seeds first reaches an accuracy."""
    mean = np.mean(row["accuracy_by_epoch"], axis=0)
    epochs = np.flatnonzero(mean >= accuracy)
    return row["gradients"] * (epochs[0] + 1) / len(mean) if len(epochs) else None


def alpha_by_epoch(row: dict[str, Any]) -> np.ndarray | None:
    """The mean over the seeds; None for methods without α."""
    if "Lookbehind" not in row["label"]:
        return None
    return np.mean(row["alpha_by_epoch"], axis=0)


def title(results: dict[str, Any]) -> str:
    """The question, and what all runs have in common."""
    setting = results["setting"]
    trained = reports.trained(setting["dataset"], setting["train"], setting["model"])
    seeds = max(len(row["seeds"]) for row in results["rows"])
    return (
        f"{results['about']}\n{trained}; n = {seeds} seeds, ± and bars are standard "
        "deviations"
    )


def table(results: dict[str, Any]) -> str:
    """A row for each way to train: its price, its accuracy, and how sure that is."""
    complete = {row["label"]: row for row in results["rows"] if row["seeds"]}
    reference = complete.get(REFERENCE)
    baseline = complete.get("Multistep-SAM") if results["counts"] else None
    head = ["", "epochs", "gradients", "seconds", "test accuracy (%)", "n"]
    head += [f"over {REFERENCE}", "p"]
    head += ["gradients until Multistep-SAM's accuracy (%)"] if baseline else []
    of_alpha = results["shows"] == "alpha"
    head += ["α in the first epoch", "in the last"] if of_alpha else []
    rows = []
    for row in results["rows"]:
        if not row["seeds"]:
            rows.append([row["label"], *["failed"] * (len(head) - 1)])
            continue
        cells = [
            row["label"],
            str(row["epochs"]),
            f"{row['gradients']:,.0f}",
            reports.spread(row["seconds"]),
            reports.spread(100 * np.array(row["accuracy"])),
            str(len(row["seeds"])),
        ]
        if reference is None or row["label"] == REFERENCE:
            cells += ["", ""]
        else:
            difference = differences(row, reference)
            cells += [f"{np.mean(difference):+.2f}", p_value(difference)]
        if baseline is not None:
            goal = float(np.mean(baseline["accuracy"]))
            needed = gradients_until(row, goal)
            share = None if needed is None else needed / baseline["gradients"]
            cells.append("never" if share is None else f"{100 * share:.0f}")
        if of_alpha:
            alpha = alpha_by_epoch(row)
            cells += ["", ""] if alpha is None else [f"{alpha[i]:.3f}" for i in (0, -1)]
        rows.append(cells)
    return reports.markdown(head, rows)


def figure(results: dict[str, Any]) -> Any:
    """Accuracies, over a number if the question is about one; or α over training."""
    complete = [row for row in results["rows"] if row["seeds"]]
    if results["shows"] == "alpha":
        alphas = {row["label"]: alpha_by_epoch(row) for row in complete}
        drawing = measure.plot_alpha(
            {label: alpha for label, alpha in alphas.items() if alpha is not None}
        )
        drawing.axes[0].set_xlabel("epoch")
        return drawing
    means = [100 * np.mean(row["accuracy"]) for row in complete]
    errors = [
        100 * np.std(row["accuracy"], ddof=1) if len(row["seeds"]) > 1 else 0.0
        for row in complete
    ]
    drawing = Figure(figsize=(7, 4.2), layout="constrained")
    axes: Any = drawing.subplots()
    if not results["x"]:
        places = np.arange(len(complete))[::-1]
        axes.errorbar(means, places, xerr=errors, fmt="o", color="black", capsize=3)
        for place, row in zip(places, complete, strict=True):
            axes.plot(
                100 * np.array(row["accuracy"]),
                [place] * len(row["accuracy"]),
                marker=".",
                color="gray",
                linestyle="",
                zorder=0,
            )
        axes.set_yticks(places, [row["label"] for row in complete])
        axes.set_xlabel("test accuracy (%)")
        axes.grid(axis="x", alpha=0.3)
        return drawing
    lines: dict[str, list[int]] = {}
    dashes = itertools.cycle(("--", ":", "-.", (0, (8, 2))))
    for i, row in enumerate(complete):
        if row["line"]:
            lines.setdefault(row["line"], []).append(i)
        else:
            axes.axhline(
                means[i],
                linestyle=next(dashes),
                linewidth=1,
                color="gray",
                label=row["label"],
            )
    # Side by side, so that no bar hides another.
    places = [row["x"] for row in complete if row["line"]]
    width = 0.012 * np.ptp(places or [0.0])
    shifts = width * (np.arange(len(lines)) - (len(lines) - 1) / 2)
    for style, shift, (line, rows) in zip(
        measure.styles(lines), shifts, lines.items(), strict=True
    ):
        axes.errorbar(
            [complete[i]["x"] + shift for i in rows],
            [means[i] for i in rows],
            yerr=[errors[i] for i in rows],
            capsize=3,
            label=line,
            **style,
        )
    axes.set_xlabel(results["x"])
    axes.set_ylabel("test accuracy (%)")
    axes.grid(alpha=0.3)
    # Below, not at the lines, since lines may overlap.
    if complete:  # none, if all failed
        drawing.legend(
            loc="outside lower center", ncols=3, frameon=False, fontsize="small"
        )
    return drawing


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Trains, and reports, for each setting of the size."""
    asked = command.parse(Comparison, "benchmarks.paper.comparisons", arguments)
    question = QUESTIONS[asked.question]
    for setting in SIZES[asked.size].comparisons:
        config = setting.config
        of = f"{asked.size}_{config.dataset}_{config.model}"
        dataset = experiment.load(
            config.dataset, asked.data_dir, setting.train, setting.test
        )
        rows = compare(question, setting, dataset, asked.runs / of)
        reports.save(
            asked.output / f"{asked.question}_{of}.json",
            "comparisons",
            {
                "question": asked.question,
                "about": question.about,
                "x": question.x,
                "shows": question.shows,
                "counts": question.counts,
                "setting": {
                    "dataset": config.dataset,
                    "train": setting.train,
                    "test": setting.test,
                    "model": config.model,
                    "batch_size": config.batch_size,
                },
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
