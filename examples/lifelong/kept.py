"""The runs of a comparison, each in a file, from which the same command continues."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from examples.images import data
from examples.lifelong.config import Lifelong
from examples.trainer import command
from examples.trainer import folders

NUMBERS = ("accuracies", "gradients", "seconds")


@contextlib.contextmanager
def claimed(
    config: Lifelong, dataset: data.Dataset, folder: Path | None
) -> Iterator[None]:
    """Holds the folder of a comparison, if it has one; methods may be added later.

    Raises:
      ValueError: if it holds another comparison, or other files.
      BlockingIOError: if another process holds it.
      Stopped: on Ctrl-C, since every finished run is there.
    """
    if folder is None:
        yield
        return
    of_all = dataclasses.replace(config, methods=())
    try:
        with folders.claimed(of_all, folder, {config.dataset: dataset.digest}, {}):
            yield
    except KeyboardInterrupt as error:
        raise command.Stopped("stopped by SIGINT") from error


def once(path: Path | None, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The numbers in a file, or else those that `make` returns, which it then has.

    Raises:
      ValueError: if the file is damaged.
    """
    if path is not None and path.exists():
        return folders.read_json(path, NUMBERS)
    made = make()
    if path is not None:
        folders.write_text(path, folders.as_text(made))
    return made
