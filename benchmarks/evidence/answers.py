"""What came out: a table of the rows, one of the claims, and a picture."""

import dataclasses
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from benchmarks import reports
from benchmarks.evidence import maps
from benchmarks.evidence.differences import corrected
from benchmarks.evidence.differences import Difference
from benchmarks.evidence.differences import difference
from benchmarks.evidence.differences import half_width
from benchmarks.evidence.differences import seeds
from benchmarks.evidence.differences import values
from benchmarks.evidence.differences import verdict
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from benchmarks.evidence.questions import QUESTIONS
from examples.lifelong import report
from examples.lifelong.config import Lifelong
from examples.trainer import command
from lookbehind_optax import measure


def title(results: dict[str, Any]) -> str:
    """The question, and what all runs have in common."""
    question = QUESTIONS[results["question"]]
    config = question.config
    done = [row for row in question.rows if seeds(results, row.label)]
    if isinstance(config, Lifelong):
        learned = report.stream(dataclasses.asdict(config))
    else:
        trained = reports.trained(config.dataset, question.train, config.model)
        lengths = [
            {"epochs": config.epochs, **row.options, **run["params"]}["epochs"]
            for row in done
            for run in seeds(results, row.label).values()
        ]
        learned = f"{trained}, {between(lengths)} epochs"
    runs = [len(seeds(results, row.label)) for row in done]
    return f"{question.about}\n{learned}; n = {between(runs)}"


def between(values: list[Any]) -> str:
    """The lowest and the highest, the only one, or 0 of none."""
    ends = sorted({min(values, default=0), max(values, default=0)})
    return " to ".join(f"{it:.2g}" if isinstance(it, float) else str(it) for it in ends)


SPREAD = (
    "± is a standard deviation over seeds. Intervals are of 95 %; p is corrected by "
    "Holm's method."
)


def table(results: dict[str, Any]) -> str:
    """The question's rows, and its claims; of a map, what it shows comes first."""
    question = QUESTIONS[results["question"]]
    parts = [rows_table(question, results)]
    if question.claims:
        parts.append(claims_table(question, results))
    if question.width:
        parts = [maps.table(question, results), *reversed(parts)]
    if any(len(seeds(results, row.label)) > 1 for row in question.rows):
        parts.append(SPREAD)
    return "\n\n".join(parts)


def rows_table(question: Question, results: dict[str, Any]) -> str:
    """A row for each way to train."""
    done = [row for row in question.rows if seeds(results, row.label)]
    if not done:
        return "No row was run."
    runs = [run for row in done for run in seeds(results, row.label).values()]
    price = prices(results, done)
    shown = [name for name in COLUMNS if any(name in run for run in runs)]
    head = ["", "gradients", "seconds", *(COLUMNS[name] for name in shown), "n"]
    head += [f"over {question.reference}", "95 %", "p"]
    head += ["parameters"] if any(row.space for row in question.rows) else []
    over = compared(question, results)
    lines = []
    for row in done:
        seconds = values(results, row.label, "seconds")
        cells = [row.label, price[row.label], mean(seconds, "{:.0f}")]
        cells += [percent(values(results, row.label, name)) for name in shown]
        cells += [str(len(seeds(results, row.label))), *say(over.get(row.label))]
        if "parameters" in head:
            chosen = [it["params"] for it in seeds(results, row.label).values()]
            cells.append(parameters(chosen))
        lines.append(cells)
    return reports.markdown(head, lines)


def compared(
    question: Question, results: dict[str, Any]
) -> dict[str, Difference | None]:
    """Each row over the reference, corrected for all rows of the question."""
    labels = [row.label for row in question.rows if row.label != question.reference]
    found = [difference(results, label, question.reference) for label in labels]
    return dict(zip(labels, corrected(found), strict=True))


COLUMNS = {
    "test_accuracy": "test accuracy (%)",
    "best_test_accuracy": "at the best epoch",
    "flipped_accuracy": "wrong labels learned (%)",
    "test_ece": "calibration error (%)",
    "forgetting": "forgetting (points)",
}


def prices(results: dict[str, Any], done: list[Row]) -> dict[str, str]:
    """Gradients of each row, relative to those of the first."""
    found = {row.label: values(results, row.label, "gradients") for row in done}
    unit = next((float(it.mean()) for it in found.values() if len(it)), 1.0)
    return {label: mean(it / unit, "{:.2g} ×") for label, it in found.items()}


def mean(numbers: np.ndarray, pattern: str) -> str:
    """Their mean as the pattern says; nothing of nothing, as of runs that diverged."""
    return pattern.format(numbers.mean()) if len(numbers) else ""


def percent(shares: np.ndarray) -> str:
    """Mean and standard deviation in percent; nothing of nothing."""
    if not len(shares):
        return ""
    if len(shares) == 1:
        return f"{100 * shares[0]:.1f}"
    return f"{100 * shares.mean():.1f} ± {100 * shares.std(ddof=1):.1f}"


def parameters(chosen: list[dict[str, Any]]) -> str:
    """The parameters that the search chose, named like the flags.

    Args:
      chosen: those of each seed, which differ if each has a search of its own.
    """
    return ", ".join(
        f"{command.flag(name)[2:]} {between([it[name] for it in chosen])}"
        for name in chosen[0]
    )


def claims_table(question: Question, results: dict[str, Any]) -> str:
    """A row for each claim, with the verdict."""
    found = corrected(
        [difference(results, claim.row, claim.over) for claim in question.claims]
    )
    head = ["claim", "compares", "difference", "95 %", "p", "n", ""]
    lines = [
        [
            claim.text,
            f"{claim.row} – {claim.over}",
            *say(of_claim),
            "" if of_claim is None else str(of_claim.n),
            verdict(of_claim),
        ]
        for claim, of_claim in zip(question.claims, found, strict=True)
    ]
    return reports.markdown(head, lines)


def say(found: Difference | None) -> list[str]:
    """Cells for difference, interval, and p-value."""
    if found is None:
        return ["", "", ""]
    low, high = f"{found.low:+.2f}", f"{found.high:+.2f}"
    return [f"{found.mean:+.2f}", f"{low} to {high}", f"{found.p:.2g}"]


def figure(results: dict[str, Any]) -> Figure:
    """Final accuracies: of each row, or over the question's number."""
    question = QUESTIONS[results["question"]]
    if question.width:
        return maps.figure(question, results)
    done = [row for row in question.rows if seeds(results, row.label)]
    lines = {row.line for row in done} if question.x else done
    height = 1.5 + 0.28 * max(16 if question.x else 5, len(lines))
    drawn = Figure(figsize=(8, height), layout="constrained")
    axes: Any = drawn.subplots()
    if question.x:
        draw_lines(axes, results, done)
        axes.set_xlabel(question.x)
        drawn.legend(
            loc="outside lower center", ncols=2, frameon=False, fontsize="small"
        )
    else:
        draw_rows(axes, results, done)
    return drawn


def draw_rows(axes: Any, results: dict[str, Any], done: list[Row]) -> None:
    """A dot and its interval for each row, the best on top."""
    labels = [row.label for row in done]
    found = {label: 100 * values(results, label, "test_accuracy") for label in labels}
    ordered = sorted(labels, key=lambda label: found[label].mean())
    for place, (label, style) in enumerate(
        zip(ordered, measure.styles(ordered), strict=True)
    ):
        points = found[label]
        axes.plot(points, [place] * len(points), ".", color="#BBBBBB", zorder=0)
        axes.errorbar(
            points.mean(),
            place,
            xerr=half_width(points),
            fmt="o",
            capsize=3,
            color=style["color"],
        )
    price = prices(results, done)
    named = [f"{label} ({price[label]})" for label in ordered]
    axes.set_yticks(range(len(ordered)), named)
    axes.set_xlabel(
        "final test accuracy (%); dots: seeds; bars: 95 % interval of the mean;\n"
        "in brackets: gradients"
    )
    axes.grid(axis="x", alpha=0.3)


def draw_lines(axes: Any, results: dict[str, Any], done: list[Row]) -> None:
    """Rows of a line over their number, the others as horizontal lines."""
    lines: dict[str, list[Row]] = {}
    for row in done:
        lines.setdefault(row.line, []).append(row)
    alone = lines.pop("", [])
    styles = iter(measure.styles([*(row.label for row in alone), *lines]))
    for row, style in zip(alone, styles, strict=False):
        mean = 100 * values(results, row.label, "test_accuracy").mean()
        axes.axhline(mean, label=row.label, **style | {"marker": ""})
    for (line, rows), style in zip(lines.items(), styles, strict=True):
        points = [100 * values(results, row.label, "test_accuracy") for row in rows]
        places = [row.x for row in rows]
        means = [it.mean() for it in points]
        axes.plot(places, means, label=line, **style)
        for place, of_seeds in zip(places, points, strict=True):
            axes.plot([place] * len(of_seeds), of_seeds, ".", color=style["color"])
    axes.set_ylabel("final test accuracy (%); dots: seeds")
    axes.grid(alpha=0.3)
