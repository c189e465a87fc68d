"""Searches hyperparameters: `python -m examples.search --help` says how."""

import sys

import optuna
from optuna.exceptions import StorageInternalError
from tqdm import tqdm

from examples.images import data
from examples.images.training import Training
from examples.search import report
from examples.search.config import Search
from examples.search.space import make_methods
from examples.search.study import ENDED
from examples.search.study import open_studies
from examples.search.trials import attempt
from examples.trainer import command


def main(arguments: list[str] | None = None) -> None:
    """Searches, and reports.

    Args:
      arguments: those of the command line if None.

    Raises:
      SystemExit: after a line that says what is wrong, or that it was stopped.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    split = arguments.index("--") if "--" in arguments else len(arguments)
    with command.explained():
        found = command.parse(Search, "examples.search", arguments[:split])
        try:
            search(found, arguments[split + 1 :])
        except KeyboardInterrupt as error:  # between trials
            raise command.Stopped("stopped by SIGINT") from error
        except StorageInternalError as error:  # if the database can't be written
            raise OSError(str(error)) from error


def search(settings: Search, others: list[str]) -> None:
    """Runs the remaining trials, and reports on all.

    Raises:
      ValueError: if the search is impossible, before anything is written.
    """
    if settings.sampler == "grid" and settings.trials is not None:
        raise ValueError("--trials doesn't apply to --sampler grid")
    methods = make_methods(settings, others)
    dataset = data.find(methods[0].config.dataset, methods[0].config.data_dir)
    for method in methods:
        Training(method.config, dataset)  # refuses what can't be trained
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies = open_studies(settings, methods, dataset.digest)
    total = sum(shared.trials for shared in studies)
    with tqdm(total=total, desc="search", unit=" trials") as progress:
        for shared in studies:
            while True:
                with shared.claim() as claimed:
                    progress.n = sum(len(shared.of_state(*ENDED)) for shared in studies)
                    progress.refresh()
                    if claimed is None:
                        break
                    attempt(shared, claimed, dataset)
    report.write(settings, studies)


if __name__ == "__main__":
    main()
