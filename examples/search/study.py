"""A study in a database that processes share; killed trials are resumed.

A process that works on a trial holds its lock, which ends with the process. So if the
database says that a trial is running, but its lock is free, the trial was killed.
"""

from collections.abc import Iterator
import contextlib
import math
from pathlib import Path
from typing import Any
from typing import NamedTuple

import filelock
import numpy as np
import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from examples.search.config import Search
from examples.search.space import Distribution
from examples.search.space import Method
from examples.search.space import parse
from examples.search.space import points
from examples.search.space import suggest
from examples.trainer import command
from examples.trainer import folders
from examples.trainer.optimizers import OPTIONS

DEFAULT_TRIALS = 20
# Settings that may change when a search resumes; the rest is in the methods.
FREE = {"config", "methods", "output", "recipe", "trials"}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Claimed(NamedTuple):
    """A trial for this process alone.

    Attributes:
      trial: of the study.
      params: its values.
      folder: of its run.
    """

    trial: optuna.Trial
    params: dict[str, Any]
    folder: Path


class Shared:
    """One method's study.

    Attributes:
      method: the method to search.
      trials: how many it should have.
      study: Optuna's.
    """

    def __init__(
        self,
        search: Search,
        method: Method,
        data: str,
        storage: optuna.storages.RDBStorage,
        alone: filelock.BaseFileLock,
    ):
        """Sets up the study; writes nothing yet.

        Args:
          search: the search that it is part of.
          method: the method to search.
          data: digest of the dataset.
          storage: the database.
          alone: lock to hold while a trial is drawn.
        """
        self.search, self.method, self.data = search, method, data
        self.storage, self.alone = storage, alone
        # Without a space, all trials would be the same.
        one_each = search.sampler == "grid" or not method.space
        self.points = list(points(method.space)) if one_each else []
        self.trials = len(self.points) or search.trials or DEFAULT_TRIALS

    def begin(self) -> None:
        """Finds or creates the study in the database."""
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=self.method.name,
            direction="maximize",
            load_if_exists=True,
            pruner=make_pruner(self.search, self.method),
        )
        self.study.set_user_attr("search", self.identity)
        for point in self.points[len(self.study.get_trials(deepcopy=False)) :]:
            self.study.enqueue_trial(point)

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that may not change when the search resumes."""
        search = command.as_json(self.search)
        config = command.as_json(self.method.config)
        ours = {f"the search's {name}": search[name] for name in search.keys() - FREE}
        ours["the data's digest"] = self.data
        return ours | {name: config[name] for name in config.keys() - folders.FREE}

    def check(self) -> None:
        """Compares this search with the one in the database.

        Raises:
          ValueError: if they differ; with what differs.
        """
        ours = self.identity
        for summary in optuna.get_all_study_summaries(self.storage):
            theirs = summary.user_attrs.get("search", ours)
            names = ours.keys() | theirs.keys()
            if summary.study_name != self.method.name:
                names -= {"optimizer", *OPTIONS}
            differences = [
                f"{name} {theirs.get(name)} there, {ours.get(name)} here"
                for name in sorted(names)
                if theirs.get(name) != ours.get(name)
            ]
            if differences:
                raise ValueError(
                    f"--output {self.search.output} holds another search; choose "
                    f"another folder, or delete it: {'; '.join(differences)}"
                )

    def of_state(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in the order of their numbers."""
        return self.study.get_trials(deepcopy=False, states=states)

    @property
    def best(self) -> FrozenTrial | None:
        """The trial of the highest accuracy, if one is complete."""
        complete = self.of_state(TrialState.COMPLETE)
        return self.study.best_trial if complete else None

    @contextlib.contextmanager
    def claim(self) -> Iterator[Claimed | None]:
        """Yields a trial that no living process has, while holding its lock.

        It is a killed trial or else a new one; None if there are enough.
        """
        with contextlib.ExitStack() as held:
            with self.alone:
                trial = self.killed(held) or self.new(held)
            yield trial

    def killed(self, held: contextlib.ExitStack) -> Claimed | None:
        """A trial that ended with its process; its run resumes."""
        study = self.storage.get_study_id_from_name(self.method.name)
        for frozen in self.of_state(TrialState.RUNNING):
            number = frozen.number
            trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)
            with contextlib.suppress(filelock.Timeout), contextlib.ExitStack() as lock:
                lock.enter_context(self.lock(number))
                # Its process may have finished it just before.
                if self.storage.get_trial(trial).state == TrialState.RUNNING:
                    held.push(lock.pop_all())
                    self.study.sampler = self.make_sampler(number)
                    return self.claimed(optuna.Trial(self.study, trial))
        return None

    def new(self, held: contextlib.ExitStack) -> Claimed | None:
        """The next trial of a grid, or a new one from the sampler."""
        states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
        if TrialState.WAITING not in states and len(states) >= self.trials:
            return None
        self.study.sampler = self.make_sampler(len(states))
        trial = self.study.ask()
        held.enter_context(self.lock(trial.number))
        return self.claimed(trial)

    def claimed(self, trial: optuna.Trial) -> Claimed:
        """A trial with its values."""
        space = self.method.space
        params = {name: suggest(trial, name, values) for name, values in space.items()}
        return Claimed(trial, params, self.path(trial.number))

    def path(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.search.output / "trials" / f"{self.method.name}-{number}"

    def lock(self, number: int) -> filelock.BaseFileLock:
        """The lock of a trial, which raises `Timeout` if another process has it."""
        return filelock.FileLock(f"{self.path(number)}.lock", timeout=0)

    def make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler of a trial, independent of process and method."""
        if self.search.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=entropy(self.search.seed, number))
        return random_sampler(self.search.seed, number)


def open_studies(search: Search, methods: list[Method], data: str) -> list[Shared]:
    """The studies of all methods, in the database of the search's folder.

    Args:
      search: the search.
      methods: those that it compares.
      data: digest of the dataset.

    Raises:
      ValueError: if the folder holds another search or other files.
    """
    folder = search.output
    folder.mkdir(parents=True, exist_ok=True)
    found = {path.name for path in folder.iterdir()} - {"search.lock"}
    if found and "search.db" not in found:
        raise ValueError(f"--output {folder} holds something other than a search")
    alone = filelock.FileLock(folder / "search.lock")
    with alone:
        storage = open_storage(folder / "search.db")
        studies = [Shared(search, method, data, storage, alone) for method in methods]
        for shared in studies:
            shared.check()
        for shared in studies:
            shared.begin()
        (folder / "trials").mkdir(exist_ok=True)
    return studies


def random_sampler(seed: int, number: int) -> optuna.samplers.RandomSampler:
    """The sampler of a trial that doesn't depend on the trials before it."""
    return optuna.samplers.RandomSampler(seed=entropy(seed, number))


def entropy(seed: int, number: int) -> int:
    """A seed for a trial, from that of the search."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def parameters(studies: list[Shared]) -> dict[str, Distribution]:
    """All parameters that a method searches, in the order of `--space`."""
    order = parse(studies[0].search.space)
    found = {name: it for shared in studies for name, it in shared.method.space.items()}
    return {name: found[name] for name in order if name in found}


def open_storage(database: Path) -> optuna.storages.RDBStorage:
    """The database, created if it doesn't exist.

    Raises:
      ValueError: if the file is something else.
    """
    try:
        return optuna.storages.RDBStorage(
            f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{database} can't be read as a search: {reason}") from error


def make_pruner(search: Search, method: Method) -> optuna.pruners.BasePruner:
    """Compares by epoch, once the learning rate has had time to take effect.

    Trials with other numbers of epochs have other schedules, so nothing is compared.
    """
    if not search.prune or "epochs" in method.space:  # long schedules start slowly
        return optuna.pruners.NopPruner()
    warmup = math.ceil(method.config.epochs / 3)
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup)
