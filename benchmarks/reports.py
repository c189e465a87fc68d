"""How results are kept: all numbers as JSON, and what they show, a table and a picture.

    python -m benchmarks.reports benchmarks/results/paper/sharpness_small.json

A benchmark writes JSON with `save`. Its table, as Markdown, and its picture are made
from that file alone, by its own functions `table` and `figure` of what the file holds;
the command above makes them again.
"""

import argparse
import importlib
import importlib.util
import json
from pathlib import Path
import sys
from typing import Any

import numpy as np

from examples.trainer.provenance import provenance


def save(path: Path, benchmark: str, results: dict[str, Any]) -> None:
    """Writes JSON, with what the numbers depend on, and renders it.

    Args:
      path: of the JSON, in a folder that is there; replaced if it exists.
      benchmark: name of the module that can render it.
      results: what JSON can hold.
    """
    results = {"benchmark": benchmark, **provenance(), **results}
    path.write_text(json.dumps(results, indent=1) + "\n")
    render(path)


def render(path: Path) -> None:
    """Prints the table of a JSON file, and writes .md and .png beside it.

    Raises:
      ValueError: if the file holds something else.
    """
    try:
        results = json.loads(path.read_text())
        name = results["benchmark"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must hold the result of a benchmark, as JSON: {error!r}"
        ) from error
    benchmark = module(name)
    table = benchmark.table(results)
    path.with_suffix(".md").write_text(table + "\n")
    benchmark.figure(results).savefig(path.with_suffix(".png"), dpi=150)
    print(f"{table}\n\nIt is in {path.with_suffix('.md')}, with .json and .png.")


def module(name: str) -> Any:
    """The benchmark of that name, in whatever room it is."""
    for room in ("speed", "paper"):
        if importlib.util.find_spec(f"benchmarks.{room}.{name}"):
            return importlib.import_module(f"benchmarks.{room}.{name}")
    raise ValueError(f"there is no benchmark {name!r} that could render its result")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Any) -> str:
    """Mean and standard deviation, where there are several."""
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g}"


def main() -> None:
    """Renders what the command line names."""
    parser = argparse.ArgumentParser(
        description="Make tables (.md) and pictures (.png) of results (.json) again."
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="FILE")
    try:
        for path in parser.parse_args().results:
            render(path)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
