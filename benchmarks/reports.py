"""How results are kept: all numbers as JSON, and what they show, a table and a picture.

    python -m benchmarks.reports benchmarks/results/paper/sharpness_small.json

A benchmark writes JSON with `save`. Its table, as Markdown, and its picture are made
from that file alone, by its own functions of what the file holds: `title`, a line on
what is shown and one on how it was measured, `table` and `figure`. The command above
makes them again.
"""

import importlib
import json
from pathlib import Path
import textwrap
from typing import Annotated
from typing import Any

import jax
import matplotlib
from matplotlib.figure import Figure
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
    """Make tables (.md) and pictures (.png, .svg) of results (.json) again.

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
    """Prints the table of a JSON file, and writes .md, .png and .svg next to it.

    Raises:
      ValueError: if the file holds something else.
    """
    if path.suffix != ".json":  # the table or the picture might replace it
        raise ValueError(f"a result must end in .json; got {path}")
    try:
        results = json.loads(path.read_text())
        shown, figure = text(results), picture(results)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} must hold the result of a benchmark, as JSON: {error!r}"
        ) from error
    path.with_suffix(".md").write_text(shown)
    figure.savefig(path.with_suffix(".png"), dpi=150)
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):  # the same each time
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    print(f"{shown}\nIt is in {path.with_suffix('.md')}, with .json, .png and .svg.")


def text(results: dict[str, Any]) -> str:
    """The title and the table of a result, as Markdown."""
    benchmark = module(results["benchmark"])
    what, _, how = benchmark.title(results).partition("\n")
    return "\n\n".join([f"**{what}**", how, benchmark.table(results)]) + "\n"


def picture(results: dict[str, Any]) -> Figure:
    """The picture of a result, below its title."""
    benchmark = module(results["benchmark"])
    figure = benchmark.figure(results)
    width = int(14 * figure.get_figwidth())  # characters that fit
    lines = benchmark.title(results).splitlines()
    title = "\n".join(textwrap.fill(line, width) for line in lines)
    figure.suptitle(title, fontsize="small")
    return figure


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


def trained(dataset: str, images: int | None, model: str) -> str:
    """What networks were trained on, and which; on all images if None."""
    which = "all images" if images is None else f"the first {images:,} images"
    return f"{dataset}, {which}, {model}"


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
