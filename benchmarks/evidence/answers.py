"""What came out: a table of the rows, one of the claims, and a picture."""

import dataclasses
from typing import Any
from typing import NamedTuple

from matplotlib.figure import Figure
import numpy as np
from scipy import stats

from benchmarks import reports
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from benchmarks.evidence.questions import QUESTIONS
from examples.lifelong import report
from examples.lifelong.config import Lifelong
from examples.trainer import command
from lookbehind_optax import measure

LEVEL = 0.05  # of the tests, and so of the 95 % intervals


class Difference(NamedTuple):
    """The difference of two rows, in points of final test accuracy, seed by seed.

    Attributes:
      mean: over the seeds that both have.
      low: end of the 95 % interval by Student's t.
      high: its other end.
      p: of the two-sided test that the mean is 0.
      n: number of seeds.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int


def seeds(results: dict[str, Any], label: str) -> dict[str, dict[str, Any]]:
    """The runs of a row by seed."""
    return results["rows"].get(label, {}).get("seeds", {})


def values(results: dict[str, Any], label: str, name: str) -> np.ndarray:
    """A number of each seed that has it."""
    found = [it[name] for it in seeds(results, label).values() if name in it]
    return np.array(found)


def difference(results: dict[str, Any], row: str, over: str) -> Difference | None:
    """Of one row over another; None if they share fewer than two seeds."""
    ours, theirs = seeds(results, row), seeds(results, over)
    points = [
        100 * (ours[seed]["test_accuracy"] - theirs[seed]["test_accuracy"])
        for seed in sorted(ours.keys() & theirs.keys())  # as sums depend on the order
    ]
    if len(points) < 2 or np.ptp(points) == 0:
        return None
    mean, error = float(np.mean(points)), float(stats.sem(points))
    student = stats.t(len(points) - 1)
    half = float(student.ppf(1 - LEVEL / 2)) * error
    p = 2 * float(student.sf(abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p, len(points))


def holm(p_values: list[float]) -> list[float]:
    """Holm's correction for as many tests as there are."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.minimum(1, np.maximum.accumulate(factors * np.sort(p_values)))
    return list(corrected[np.argsort(order)])


def corrected(found: list[Difference | None]) -> list[Difference | None]:
    """Differences with p-values corrected for the number of tests."""
    known = [it for it in found if it is not None]
    fixed = iter(holm([it.p for it in known]))
    return [None if it is None else it._replace(p=next(fixed)) for it in found]


def verdict(found: Difference | None) -> str:
    """What a difference says about a claim."""
    if found is None:
        return "not run"
    if found.p >= LEVEL:
        return "not shown"
    return "holds" if found.mean > 0 else "the opposite holds"


def say(found: Difference | None) -> list[str]:
    """Cells for difference, interval, and p-value."""
    if found is None:
        return ["", "", ""]
    low, high = f"{found.low:+.2f}", f"{found.high:+.2f}"
    return [f"{found.mean:+.2f}", f"{low} to {high}", f"{found.p:.2g}"]


def title(results: dict[str, Any]) -> str:
    """The question, and what all runs have in common."""
    question = QUESTIONS[results["question"]]
    config = question.config
    done = [row for row in question.rows if seeds(results, row.label)]
    if isinstance(config, Lifelong):
        learned = report.stream(dataclasses.asdict(config))
    else:
        trained = reports.trained(config.dataset, question.train, config.model)
        lengths = [row.options.get("epochs", config.epochs) for row in done]
        learned = f"{trained}, {between(lengths)} epochs"
    runs = [len(seeds(results, row.label)) for row in done]
    spread = (
        ", ± is a standard deviation over seeds" if max(runs, default=0) > 1 else ""
    )
    return f"{question.about}\n{learned}; n = {between(runs)}{spread}"


def between(numbers: list[int]) -> str:
    """The lowest and the highest, the only one, or 0 of none."""
    ends = {min(numbers, default=0), max(numbers, default=0)}
    return " to ".join(map(str, sorted(ends)))


def table(results: dict[str, Any]) -> str:
    """The question's rows, and its claims; of a map, what it shows comes first."""
    question = QUESTIONS[results["question"]]
    parts = [rows_table(question, results)]
    if question.claims:
        parts.append(claims_table(question, results))
    if question.width:
        parts = [widths_table(question, results), *reversed(parts)]
    parts.append("Intervals are of 95 %; p is corrected by Holm's method.")
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
    found = corrected(
        [
            None
            if row.label == question.reference
            else difference(results, row.label, question.reference)
            for row in done
        ]
    )
    lines = []
    for row, over in zip(done, found, strict=True):
        seconds = values(results, row.label, "seconds")
        cells = [row.label, price[row.label], mean(seconds, "{:.0f}")]
        cells += [percent(values(results, row.label, name)) for name in shown]
        cells += [str(len(seeds(results, row.label))), *say(over)]
        if "parameters" in head:
            cells.append(parameters(next(iter(seeds(results, row.label).values()))))
        lines.append(cells)
    return reports.markdown(head, lines)


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
    unit = next((float(it[0]) for it in found.values() if len(it)), 1.0)
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


def parameters(cell: dict[str, Any]) -> str:
    """The parameters that the search chose, named like the flags."""
    return ", ".join(
        f"{command.flag(name)[2:]} {value:.2g}"
        if isinstance(value, float)
        else f"{command.flag(name)[2:]} {value}"
        for name, value in cell["params"].items()
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


def figure(results: dict[str, Any]) -> Figure:
    """Final accuracies: of each row, or over the question's number."""
    question = QUESTIONS[results["question"]]
    if question.width:
        return maps(cells_by_method(question, results), question.x)
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


Cells = dict[tuple[str, float], float]  # accuracy by line and number


def cells_by_method(question: Question, results: dict[str, Any]) -> dict[str, Cells]:
    """Mean final test accuracy in percent of each method's cells of a map."""
    methods: dict[str, Cells] = {}
    for row in question.rows:
        points = values(results, row.label, "test_accuracy")
        if row.method and len(points):
            cells = methods.setdefault(row.method, {})
            cells[row.line, row.x] = 100 * float(points.mean())
    return methods


def near(cells: Cells, best: float) -> list[tuple[str, float]]:
    """The cells that are within a point of an accuracy."""
    return [at for at, accuracy in cells.items() if accuracy > best - 1]


def widths_table(question: Question, results: dict[str, Any]) -> str:
    """The best of each method, and how many of its cells are within a point of it."""
    methods = cells_by_method(question, results)
    highest = max((max(cells.values()) for cells in methods.values()), default=0.0)
    within = ("cells within a point of it", "of the best of all", "of")
    head = ["", "best (%)", "at", *within]
    lines = []
    for method, cells in methods.items():
        best = max(cells, key=lambda at: cells[at])
        count = [str(len(near(cells, it))) for it in (cells[best], highest)]
        (at,) = (row.label for row in question.rows if (row.line, row.x) == best)
        lines.append([method, f"{cells[best]:.1f}", at, *count, str(len(cells))])
    return reports.markdown(head, lines)


def maps(methods: dict[str, Cells], x: str) -> Figure:
    """A map for each method, over the number and what else tells its lines apart."""
    numbers = sorted({at[1] for cells in methods.values() for at in cells})
    highest = max((max(cells.values()) for cells in methods.values()), default=100.0)
    names = {tuple(lines_of(cells, method)) for method, cells in methods.items()}
    tallest = max(map(len, names), default=1)
    beside = tallest >= len(numbers)  # one map beside the other, or below it
    count = max(1, len(methods))
    shape = (1, count) if beside else (count, 1)
    size = (4 + 2 * shape[1], 1.5 + (0.4 * tallest + 0.3) * shape[0])
    drawn = Figure(figsize=size, layout="constrained")
    same = beside and len(names) == 1
    grid = drawn.subplots(*shape, sharex=True, sharey=same, squeeze=False)
    for axes, (method, cells) in zip(grid.flat, methods.items(), strict=False):
        draw_map(axes, method, cells, numbers, highest)
    shown = "final test accuracy (%), bold within a point of the method's best"
    drawn.supxlabel(f"{x}; {shown}", fontsize="small")
    return drawn


def lines_of(cells: Cells, method: str) -> list[str]:
    """What tells the lines of a method's map apart, from the top."""
    lines = dict.fromkeys(line for line, _ in cells)
    return [line.removeprefix(f"{method}, ") for line in lines]


def draw_map(
    axes: Any, method: str, cells: Cells, numbers: list[float], highest: float
) -> None:
    """Accuracy of each cell; bold within a point of its method's best."""
    lines = list(dict.fromkeys(line for line, _ in cells))
    bold = near(cells, max(cells.values()))
    image = np.full((len(lines), len(numbers)), np.nan)
    for (line, x), accuracy in cells.items():
        row, column = lines.index(line), numbers.index(x)
        image[row, column] = accuracy
        options = {"ha": "center", "va": "center", "fontsize": "small"}
        weight = "bold" if (line, x) in bold else "normal"
        axes.text(column, row, f"{accuracy:.1f}", weight=weight, **options)
    # Below ten points less than the best, all cells have one color.
    colors = {"cmap": "YlGn", "vmin": highest - 10, "vmax": highest}
    axes.imshow(image, alpha=0.6, aspect="auto", **colors)
    axes.set_xticks(range(len(numbers)), [f"{number:g}" for number in numbers])
    axes.set_yticks(range(len(lines)), lines_of(cells, method))
    axes.set_title(method, fontsize="medium")


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
    axes.set_xlabel("final test accuracy (%); bars: 95 %; in brackets: gradients")
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


def half_width(points: np.ndarray) -> float:
    """Half the width of the 95 % interval of a mean; with two points it is huge."""
    if len(points) < 3:
        return 0.0
    return float(stats.t.ppf(1 - LEVEL / 2, len(points) - 1) * stats.sem(points))
