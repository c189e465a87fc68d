"""Maps: how wide the range is in which a method is near its best."""

from typing import Any

from matplotlib.figure import Figure
import numpy as np

from benchmarks import reports
from benchmarks.evidence.differences import values
from benchmarks.evidence.question import Question

Cells = dict[tuple[str, float], float]  # accuracy by line and number


def by_method(question: Question, results: dict[str, Any]) -> dict[str, Cells]:
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


def table(question: Question, results: dict[str, Any]) -> str:
    """The best of each method, and how many of its cells are within a point of it."""
    methods = by_method(question, results)
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


def figure(question: Question, results: dict[str, Any]) -> Figure:
    """A map for each method, over the number and what else tells its lines apart."""
    methods = by_method(question, results)
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
    drawn.supxlabel(f"{question.x}; {shown}", fontsize="small")
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
