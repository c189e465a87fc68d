"""Tables and a picture of what was measured on an accelerator.

    python -m benchmarks.accelerator --report DIR

The records of all jobs become one JSON, DIR/report.json, of which `table` and `figure`
are made, as of the results of every other benchmark.
"""

import json
from pathlib import Path
import statistics
from typing import Any

from matplotlib.figure import Figure

from benchmarks import reports
from benchmarks.accelerator import records
from benchmarks.accelerator import tables
from benchmarks.accelerator import targets
from benchmarks.speed.peers import speeds


def write(folder: Path) -> None:
    """Renders the records of a folder.

    Raises:
      SystemExit: if there are none.
    """
    found = records.read_all(folder)
    done = [one for one in found if one["status"] == records.DONE]
    if not done:
        raise SystemExit(f"Error: --report must be a folder of results; got {folder}")
    about = {key: done[0][key] for key in ("device", "versions")}
    revisions = sorted({one["revision"] for one in done})
    path = folder / "report.json"
    results = {
        "benchmark": "report",
        **about,
        "revision": ", ".join(revisions),
        "jobs": found,
    }
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    reports.render(path)


def table(results: dict[str, Any]) -> str:
    """A table of each kind of job that is done."""
    parts = []
    for what, make in tables.TABLES.items():
        if rows := make(results):
            parts.append(f"**{what}**\n\n{reports.markdown(rows[0], rows[1:])}")
    return "\n\n".join(parts)


def title(results: dict[str, Any]) -> str:
    """The device and its limits."""
    found = tables.device_limits(results)
    text = f"Lookbehind on an accelerator\nMeasured on {results['device']}."
    if found is not None:
        text += (
            f" Its peak in bfloat16 is {found.bf16 / 1e12:,.0f} TFLOP/s, and its "
            f"memory gives {found.bandwidth / 1e12:.2f} TB/s."
        )
    return text


def figure(results: dict[str, Any]) -> Figure:
    """Time, memory and compile time over k, and speed relative to PyTorch."""
    drawing = Figure(figsize=(13, 3.8), layout="constrained")
    axes: Any = drawing.subplots(1, 4)
    axes[0].axhline(targets.OVERHEAD, color="gray", linewidth=0.8)
    axes[1].axhline(targets.COPIES, color="gray", linewidth=0.8)
    panels = {
        "step over k + 1 gradients": tables.overhead,
        "extra memory (parameter copies)": lambda row: row[
            "temporary_parameter_copies"
        ],
        "compile time (s)": lambda row: row["compile_s"],
    }
    for ax, (label, value) in zip(axes, panels.items(), strict=False):
        for job in tables.of_kind(results, "step"):
            points = [(row["k"], value(row)) for row in job["rows"]]
            name = f"{job['model']}, {job['precision']}"
            ax.plot(*zip(*points, strict=True), marker="o", label=name)
        ax.set_xlabel("k")
        ax.set_ylabel(label)
        ax.set_ylim(min(0, ax.get_ylim()[0]), 1.05 * ax.get_ylim()[1])
    draw_peers(axes[3], results)
    if tables.of_kind(results, "step"):
        axes[0].legend(fontsize="x-small", frameon=False)
    return drawing


def draw_peers(ax: Any, results: dict[str, Any]) -> None:
    """How many times as fast ours is as PyTorch's eager loop, over k."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for job in tables.of_kind(results, "peers"):
        for row in job["rows"]:
            line = lines.setdefault(f"{row['model']}, {row['precision']}", [])
            line.append((row["k"], statistics.median(speeds(row, tables.EAGER))))
    for name, points in lines.items():
        ax.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    ax.plot(
        list(targets.FASTER),
        list(targets.FASTER.values()),
        "--",
        color="gray",
        label="target",
    )
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    ax.set_xlabel("k")
    ax.set_ylabel("times as fast as PyTorch, eager")
    ax.legend(fontsize="x-small", frameon=False)
