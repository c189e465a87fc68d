"""Compares ways to learn a stream of tasks: `python -m examples.lifelong --help`."""

from examples.lifelong.config import Lifelong
from examples.lifelong.learning import run
from examples.lifelong.report import figure
from examples.lifelong.report import table
from examples.trainer import command


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Learns, prints a table, and writes it with a plot beside the accuracies."""
    config = command.parse(Lifelong, "examples.lifelong", arguments)
    try:
        results = run(config, config.output)
    except KeyboardInterrupt as error:
        raise command.Stopped("stopped by SIGINT") from error
    shown = table(results)
    (config.output / "lifelong.md").write_text(shown + "\n")
    figure(results).savefig(config.output / "lifelong.png", dpi=150)
    print(shown)
    print(f"\nTable, plot and all accuracies are in {config.output / 'lifelong'}.*")


if __name__ == "__main__":
    main()
