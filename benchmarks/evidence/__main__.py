"""Evidence: when a climb pays, what Lookbehind adds, and at what price.

    python -m benchmarks.evidence --questions noise-40

Several processes with the same command share the work. docs/protocol.md says what is
asked, and how it is answered.
"""

from pathlib import Path
from typing import Annotated

import optuna
from tqdm import tqdm

from benchmarks import reports
from benchmarks.evidence import cells
from benchmarks.evidence.questions import QUESTIONS
from benchmarks.paper import experiment
from examples.trainer import command
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.paths import DataFolder
from examples.trainer.paths import OutputFolder

Name = Annotated[str, command.among(QUESTIONS)]


@settings
class Evidence(Settings):
    """Run what docs/protocol.md lays down, and report on it.

    Two commands:
      python -m benchmarks.evidence --questions noise-40
      python -m benchmarks.evidence --questions price-40 price-0 range

    Attributes:
      questions: questions to answer, one after the other;
        benchmarks/evidence/questions.py has the runs of each.
      data_dir: folder of datasets that TFDS has prepared; where they are downloaded to
        if they aren't there. TFDS's own by default.
      runs: folder of all training runs. Interrupted ones are resumed.
      output: folder for the results, as JSON, Markdown, SVG and PNG. It keeps finished
        runs, which aren't repeated.
    """

    questions: command.Several[Name]
    data_dir: DataFolder | None = None
    runs: OutputFolder = Path("runs/evidence")
    output: OutputFolder = Path("benchmarks/results/evidence")


def answer(asked: Evidence, name: str) -> None:
    """Runs all cells of a question that no other process is running, and reports."""
    question, folder = QUESTIONS[name], asked.runs / name
    for place in (folder, asked.output):
        place.mkdir(parents=True, exist_ok=True)
    kept = cells.Kept(asked.output / f"{name}.json", folder / "results.lock")
    dataset = experiment.load(question.config.dataset, asked.data_dir, question.train)
    of_question = list(cells.cells(question))
    done, total = kept.count(of_question), len(of_question)
    with tqdm(total=total, initial=done, desc=name, unit=" runs") as progress:
        again = True
        while again:  # other processes' trials may let seeds start
            again = False
            for cell in of_question:
                again |= cells.attempt(name, question, cell, kept, dataset, folder)
                progress.update(kept.count(of_question) - progress.n)
    reports.render(kept.path)


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Answers the questions that the command line names."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked = command.parse(Evidence, "benchmarks.evidence", arguments)
    for name in asked.questions:
        answer(asked, name)


if __name__ == "__main__":
    main()
