"""How results are kept: all numbers as JSON, and what they show, a table and a picture.

    python -m benchmarks.reports benchmarks/results/paper/sharpness_small.json

A benchmark writes JSON with `save`. Its table, as Markdown, and its picture are made
from that file alone, by its own functions `table` and `figure` of what the file holds;
the command above makes them again.
"""

import importlib
import json
from pathlib import Path
from typing import Annotated
from typing import Any

import jax
import numpy as np
import tyro

from examples.trainer import command
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.paths import output_file
from examples.trainer.provenance import provenance

# A path of results; the table and the picture go next to it.
Output = Annotated[Path, output_file(".json")]
ROOMS = {
    "speed": ("step_time", "scaling", "peers", "train_throughput"),
    "paper": ("comparisons", "trade_off", "sharpness", "robustness", "lifelong"),
    "evidence": ("answers",),
    "accelerator": ("report",),
}


@settings
class Reports(Settings):
    """Make tables (.md) and pictures (.png) of results (.json) again.

    Attributes:
      results: JSON files that benchmarks have written. The table and the picture next
        to each are replaced.
    """

    results: tyro.conf.Positional[tuple[Path, ...]]


def default(name: str) -> Path:
    """Where a speed benchmark's results go on this kind of device."""
    return Path(f"benchmarks/results/speed/{name}_{jax.default_backend()}.json")


def save(path: Path, benchmark: str, results: dict[str, Any]) -> None:
    """Writes JSON, with what the numbers depend on, and renders it.

    Args:
      path: of the JSON, in a folder that is made if missing; replaced if it exists.
      benchmark: name of the module that can render it.
      results: what JSON can hold.
    """
    results = {"benchmark": benchmark, **provenance(), **results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    render(path)


def render(path: Path) -> None:
    """Prints the table of a JSON file, and writes .md and .png next to it.

    Raises:
      ValueError: if the file holds something else.
    """
    if path.suffix != ".json":  # the table or the picture might replace it
        raise ValueError(f"a result must end in .json; got {path}")
    try:
        results = json.loads(path.read_text())
        name = results["benchmark"]
        benchmark = module(name)
        table, figure = benchmark.table(results), benchmark.figure(results)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} must hold the result of a benchmark, as JSON: {error!r}"
        ) from error
    path.with_suffix(".md").write_text(table + "\n")
    figure.savefig(path.with_suffix(".png"), dpi=150)
    print(f"{table}\n\nIt is in {path.with_suffix('.md')}, with .json and .png.")


def module(name: str) -> Any:
    """The benchmark of that name, in any of the subfolders."""
    for room, names in ROOMS.items():
        if name in names:
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


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Renders what the command line names."""
    results = command.parse(Reports, "benchmarks.reports", arguments).results
    if not results:
        raise ValueError(
            "the command needs results, such as "
            "benchmarks/results/paper/sharpness_small.json"
        )
    for path in results:
        render(path)


if __name__ == "__main__":
    main()
