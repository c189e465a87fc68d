"""Compares ways to learn a stream of tasks: `python -m examples.lifelong --help`."""

from examples.lifelong.config import Lifelong
from examples.lifelong.learning import run
from examples.lifelong.report import figure
from examples.lifelong.report import table
from examples.trainer import command
from examples.trainer import folders


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Learns, prints a table, and writes it, a plot and all accuracies."""
    config = command.parse(Lifelong, "examples.lifelong", arguments)
    results = run(config, config.output)
    shown, stem = table(results), config.output / "lifelong"
    folders.write_text(stem.with_suffix(".json"), folders.as_text(results))
    folders.write_text(stem.with_suffix(".md"), shown + "\n")
    figure(results).savefig(stem.with_suffix(".png"), dpi=150)
    print(f"{shown}\n\nTable, plot and all accuracies are in {stem}.*")


if __name__ == "__main__":
    main()
