"""The results of a search: tables, a picture, and the winners' settings."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from examples.images.config import Config
from examples.search.config import Search
from examples.search.picture import ACCURACY
from examples.search.picture import figure
from examples.search.study import ENDED
from examples.search.study import parameters
from examples.search.study import Shared
from examples.trainer import command
from examples.trainer import folders


def write(search: Search, studies: list[Shared]) -> None:
    """Writes search.md, search.png and the winners to the folder, and says where.

    Raises:
      ValueError: if no trial was completed.
    """
    folder = search.output
    best = summary(studies)
    with studies[0].alone:
        text = f"{best}\n\n{table(studies)}\n"
        folders.write_text(folder / "search.md", text)
        folders.write(
            folder / "search.png",
            lambda path: figure(studies).savefig(path, dpi=150, format="png"),
        )
        found = write_winners(folder, studies)
    print(best)
    running = sum(len(shared.of_state(TrialState.RUNNING)) for shared in studies)
    if running:
        print(f"{running} trials are running in other processes.")
    if not found:
        failed = [it for shared in studies for it in shared.of_state(TrialState.FAIL)]
        reasons = [trial.user_attrs["reason"] for trial in failed[:1]]
        raise ValueError(f"no trial was completed: {''.join(reasons)}")
    print(
        f"\nAll trials are in {folder}. To train the winner with fresh seeds:\n"
        f"python -m examples.images --config {folder / 'winner.json'}"
    )


def write_winners(folder: Path, studies: list[Shared]) -> bool:
    """Writes winner.json, and one for each method if there are several.

    Returns:
      Whether there is a winner.
    """
    found = {}
    for shared in studies:
        if shared.best is not None:
            config = winner(shared, folder)
            found[shared.best.value or 0.0, shared.method.name] = config
            if len(studies) > 1:
                path = folder / f"winner-{shared.method.name}.json"
                folders.write(path, functools.partial(command.save, config))
    if found:
        best = found[max(found)]
        folders.write(folder / "winner.json", functools.partial(command.save, best))
    return bool(found)


def winner(shared: Shared, folder: Path) -> Config:
    """The settings of the best trial, with seeds that no trial used."""
    config = shared.method.config
    fresh = config.seed + 1 if config.seed < 10**9 else 0
    return dataclasses.replace(
        config,
        **shared.study.best_params,
        seed=fresh,
        config=None,
        output=folder / f"winner-{shared.method.name}",
    )


def summary(studies: list[Shared]) -> str:
    """A table of the best trial of each method."""
    names = parameters(studies)
    rows = [["method", "trials", ACCURACY, *map(command.flag, names)]]
    for shared in studies:
        number = str(len(shared.of_state(*ENDED)))
        for name, state in (("pruned", TrialState.PRUNED), ("failed", TrialState.FAIL)):
            if count := len(shared.of_state(state)):
                number += f", {count} {name}"
        best = shared.best
        params = {} if best is None else best.params
        value = "" if best is None else percent(best)
        cells = [number_of(params.get(name)) for name in names]
        rows.append([shared.method.name, number, value, *cells])
    return markdown(rows)


def table(studies: list[Shared]) -> str:
    """A table of all trials."""
    names = parameters(studies)
    rows = [["method", "trial", ACCURACY, *map(command.flag, names), ""]]
    for shared in studies:
        for trial in shared.study.get_trials(deepcopy=False):
            cells = [number_of(trial.params.get(name)) for name in names]
            notes = {
                TrialState.COMPLETE: "",
                TrialState.PRUNED: f"pruned after epoch {trial.last_step}",
                TrialState.FAIL: f"failed: {trial.user_attrs.get('reason')}",
            }
            note = notes.get(trial.state, trial.state.name.lower()).replace("|", "\\|")
            name = shared.method.name
            rows.append([name, str(trial.number), percent(trial), *cells, note])
    return markdown(rows)


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def percent(trial: FrozenTrial) -> str:
    """Accuracy of a trial, if it has one."""
    return "" if trial.value is None else f"{100 * trial.value:.2f}"


def number_of(value: Any) -> str:
    """A parameter's value in a table."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
