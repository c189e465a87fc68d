"""The cells of a question: a trial or a seed of a row, each a run, in one JSON.

Processes share the work: each cell has a lock, which ends with its process. A cell
whose numbers are in the JSON isn't repeated, so a question can be finished on another
machine.
"""

from collections.abc import Iterator
import contextlib
import gc
import json
from pathlib import Path
from typing import Any
from typing import Literal
from typing import NamedTuple

import filelock
import jax

from benchmarks.evidence import images
from benchmarks.evidence import streams
from benchmarks.evidence.question import Question
from benchmarks.evidence.question import Row
from examples.images import data
from examples.lifelong.config import Lifelong
from examples.trainer import command
from examples.trainer import folders
from examples.trainer.provenance import provenance

TRIAL_SEED = 1000  # of the first search; no row is judged by it


class Cell(NamedTuple):
    """A run.

    Attributes:
      row: what it is a run of.
      kind: "trials", which choose the parameters, or "seeds", which judge them.
      number: of the trial, or the seed.
    """

    row: Row
    kind: Literal["trials", "seeds"]
    number: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        label = self.row.label.replace(" ", "-").replace(",", "")
        return f"{label}/{self.kind}-{self.number}"


def cells(question: Question) -> Iterator[Cell]:
    """All cells, in the order in which they run.

    In each search, a row is completed before the next one starts. Without a search,
    every row gets its first seed before any gets its second, so rows can be compared
    early.
    """
    if question.searched or not any(row.space for row in question.rows):
        for seed in range(question.seeds):
            yield from (Cell(row, "seeds", seed) for row in question.rows)
        return
    for search in range(question.searches):
        for row in question.rows:
            for number in trials_of(question, search) if row.space else ():
                yield Cell(row, "trials", number)
            for seed in range(search, question.seeds, question.searches):
                yield Cell(row, "seeds", seed)


def trials_of(question: Question, search: int) -> range:
    """The numbers of the trials of a search."""
    return range(search * question.trials, (search + 1) * question.trials)


class Kept:
    """The numbers of a question, in a JSON that processes share.

    Attributes:
      path: of the JSON.
    """

    def __init__(self, path: Path, lock: Path):
        """Nothing is read yet."""
        self.path, self.alone = path, filelock.FileLock(lock)

    def read(self) -> dict[str, Any]:
        """All numbers so far, by label of the row, kind, and number."""
        return json.loads(self.path.read_text())["rows"] if self.path.exists() else {}

    def find(self, cell: Cell) -> dict[str, Any] | None:
        """The numbers of a cell, if it is done."""
        return found(self.read(), cell)

    def count(self, of: list[Cell]) -> int:
        """How many cells are done."""
        rows = self.read()
        return sum(found(rows, cell) is not None for cell in of)

    def add(self, question: str, cell: Cell, numbers: dict[str, Any]) -> None:
        """Keeps the numbers of a cell."""
        with self.alone:
            rows = self.read()
            of_row = rows.setdefault(cell.row.label, {"trials": {}, "seeds": {}})
            of_kind = {**of_row[cell.kind], str(cell.number): numbers}
            of_row[cell.kind] = dict(sorted(of_kind.items(), key=lambda it: int(it[0])))
            kept = {"benchmark": "answers", **provenance(), "question": question}
            text = json.dumps({**kept, "rows": rows}, indent=1, ensure_ascii=False)
            folders.write_text(self.path, text + "\n")


def found(rows: dict[str, Any], cell: Cell) -> dict[str, Any] | None:
    """The numbers of a cell among those of all rows, if it is done."""
    return rows.get(cell.row.label, {}).get(cell.kind, {}).get(str(cell.number))


def best(question: Question, row: Row, of_row: dict[str, Any], search: int) -> Any:
    """The parameters of the trial with the highest validation accuracy of a search.

    Returns:
      None if a trial is missing.
    """
    if not row.space:
        return {}
    trials = of_row.get("trials", {})
    of_search = [trials.get(str(number)) for number in trials_of(question, search)]
    if None in of_search:
        return None
    return max(of_search, key=lambda trial: trial["valid_accuracy"])["params"]


def draw(question: Question, row: Row, number: int) -> dict[str, Any]:
    """The parameters of a trial: the same rate and ρ for every row that has them."""
    import optuna  # here, so that cells that search nothing don't need it
    from scipy.stats import qmc

    from examples.search import space
    from examples.search.study import random_sampler

    number += question.search * question.trials
    searched = space.parse(row.space)
    if question.even:  # by a Halton sequence, without its first point, the corner
        halton = qmc.Halton(len(searched), scramble=False)
        shares = halton.random(number + 2)[-1]
        return {
            name: space.at(values, float(share))
            for (name, values), share in zip(searched.items(), shares, strict=True)
        }
    trial = optuna.create_study(sampler=random_sampler(0, number)).ask()
    return {
        name: space.suggest(trial, name, values) for name, values in searched.items()
    }


def measure(
    question: Question,
    cell: Cell,
    params: dict[str, Any],
    dataset: data.Dataset,
    folder: Path,
) -> dict[str, Any]:
    """The numbers of a cell; a training that diverges gets an accuracy of 0."""
    trial = cell.kind == "trials"
    search = question.search + cell.number // question.trials
    seed = TRIAL_SEED + search if trial else cell.number
    options = {**cell.row.options, **params, "seed": seed}
    kind: Any = streams if isinstance(question.config, Lifelong) else images
    about = {"params": params, **provenance()}
    del about["device"]
    try:
        return about | kind.run(question.config, options, dataset, folder, trial)
    except FloatingPointError as error:
        judge = "valid" if trial else "test"
        return about | {"failed": str(error), f"{judge}_accuracy": 0.0}
    finally:
        jax.clear_caches()  # of functions that no other cell will use
        gc.collect()


def attempt(
    name: str, question: Question, cell: Cell, kept: Kept, dataset: Any, folder: Path
) -> bool:
    """Runs a cell, unless it is finished, runs in another process, or must wait.

    Args:
      name: of the question.
      question: what is asked.
      cell: the cell to run.
      kept: the numbers so far.
      dataset: to train on.
      folder: of the question's runs.

    Returns:
      Whether it was run here.
    """
    place = folder / cell.name
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{place}.lock", timeout=0)
    with contextlib.suppress(filelock.Timeout), lock:
        if kept.find(cell) is not None:
            return False
        if cell.kind == "trials":
            params = draw(question, cell.row, cell.number)
        else:
            params = parameters(question, cell, kept)
        if params is None:
            return False
        numbers = measure(question, cell, params, dataset, place)
        kept.add(name, cell, numbers)
        return True
    return False


def parameters(question: Question, cell: Cell, kept: Kept) -> Any:
    """The parameters that a seed judges; None while they aren't known."""
    path = kept.path
    if question.searched:
        path = path.with_stem(question.searched)
        if not path.exists():
            raise command.Invalid(f"--questions {question.searched} must come first")
    rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    of_row, search = rows.get(cell.row.label, {}), cell.number % question.searches
    return best(question, cell.row, of_row, search)
