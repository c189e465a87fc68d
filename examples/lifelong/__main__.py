"""Compares ways to learn a stream of tasks: `python -m examples.lifelong --help`."""

import json
from pathlib import Path
from typing import Any

from examples.lifelong.config import Lifelong
from examples.lifelong.learning import run
from examples.lifelong.report import figure
from examples.lifelong.report import table
from examples.trainer import command


def save(results: dict[str, Any], folder: Path, stem: str) -> None:
    """Writes table, plot and JSON, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{stem}.md").write_text(table(results) + "\n")
    figure(results).savefig(folder / f"{stem}.png", dpi=150)
    print(table(results))
    print(f"\nTable, plot and all accuracies are in {folder / stem}.*")


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Learns, and reports."""
    config = command.parse(Lifelong, "examples.lifelong", arguments)
    save(run(config), config.output, "lifelong")


if __name__ == "__main__":
    main()
