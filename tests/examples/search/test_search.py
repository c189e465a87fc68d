"""A whole search, around a training that takes no time, and around real ones."""

import functools
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
from matplotlib.figure import Figure
import optuna
from optuna.trial import TrialState
import pytest

from examples.images.config import Config
from examples.images.config import RECIPES
from examples.images.training import Training
from examples.search import __main__ as program
from examples.search import report
from examples.search import study
from examples.search import trials
from examples.search.config import Search
from examples.trainer import config as configuration
from examples.trainer import runs
from tests.library.members import each

SPACE = ("learning-rate=log:0.01:0.3", "rho=log:0.01:0.5", "k=2,5", "alpha=0.2,0.5,0.8")
GRID = ("learning-rate=0.01,0.1", "rho=0.05,0.5")
FLAGS = ["--epochs", "3"]


class Killed(BaseException):
    """Ends a trial as SIGKILL does: nobody hears of it, and its lock is free."""


class Quick:
    """In place of the trainer: accuracies of hand, and a list of what was trained."""

    goal = "valid_accuracy"

    def __init__(self, *_):
        """Without data."""

    trained: list[Config]
    events: dict[int, BaseException]
    digest: str

    @classmethod
    def run(cls, config, training, folder, on_record):
        """Best at a rate of 0.1 and at ρ = 0.05; more by the epoch."""
        del training
        cls.trained.append(config)
        folder.mkdir(parents=True, exist_ok=True)
        if event := cls.events.pop(len(cls.trained), None):
            raise event
        rho = 0.05 if config.rho is None else config.rho
        best = 0.9 - abs(config.learning_rate - 0.1) - abs(rho - 0.05)
        for epoch in range(1, config.epochs + 1):
            accuracy = best * epoch / config.epochs
            on_record({"epoch": epoch, "valid_accuracy": accuracy})
        return {"final_valid_accuracy": best}


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    if "slow" in request.keywords:
        return None
    Quick.trained, Quick.events, Quick.digest = [], {}, "12"
    monkeypatch.setattr(trials, "Training", Quick)
    monkeypatch.setattr(trials.runs, "run", Quick.run)
    monkeypatch.setattr(program, "Training", Quick)
    monkeypatch.setattr(program.data, "find", lambda *_: Quick)
    # Collecting takes a second here, where there is nothing on a device.
    monkeypatch.setattr(trials.gc, "collect", lambda: 0)
    if "picture" not in request.fixturenames:
        monkeypatch.setattr(report, "figure", lambda studies: Figure())
    return Quick


@pytest.fixture
def picture():
    """Draws the picture, which takes a second."""


def search(folder, flags=FLAGS, **settings):
    program.search(Search(output=folder / "search", **settings), flags)


def trials_of(folder, method):
    storage = f"sqlite:///{folder}/search/search.db"
    return optuna.load_study(study_name=method, storage=storage).trials


def test_a_grid_trains_every_combination_once(tmp_path, quick):
    search(tmp_path, sampler="grid", space=GRID, methods=("base", "sam"))
    trained = [(it.optimizer, it.learning_rate, it.rho) for it in quick.trained]
    assert trained == [
        *[("base", rate, None) for rate in (0.01, 0.1)],
        *[("sam", rate, rho) for rate in (0.01, 0.1) for rho in (0.05, 0.5)],
    ]
    assert all(it.validation == 0.1 and it.epochs == 3 for it in quick.trained)
    folders = [str(it.output.relative_to(tmp_path)) for it in quick.trained]
    assert folders[0] == "search/trials/base-0"
    assert len(set(folders)) == 6
    # Again, there is nothing left to do.
    search(tmp_path, sampler="grid", space=GRID, methods=("base", "sam"))
    assert len(quick.trained) == 6


@pytest.mark.thorough
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_all_methods_have_as_many_trials(sampler, tmp_path, quick):
    methods = ("base", "sam", "lookbehind_sam")
    settings = dict(sampler=sampler, space=SPACE, methods=methods, prune=False)
    search(tmp_path, trials=3, **settings)
    rates = {
        method: [it.learning_rate for it in quick.trained if it.optimizer == method]
        for method in methods
    }
    assert [len(of_method) for of_method in rates.values()] == [3, 3, 3]
    assert len(set(rates["sam"])) == 3
    if sampler == "random":  # all methods try the same rates
        assert rates["base"] == rates["sam"] == rates["lookbehind_sam"]


@pytest.mark.thorough
def test_a_search_that_continues_draws_what_it_would_have_drawn(tmp_path, quick):
    settings = dict(space=SPACE[:2], methods=("sam",), prune=False)
    flags = ["--epochs", "1"]
    for trials_until in (4, 11, 12):  # the first ten are random
        search(tmp_path / "parts", flags, trials=trials_until, **settings)
    search(tmp_path / "whole", flags, trials=12, **settings)
    params = [
        [trial.params for trial in trials_of(tmp_path / name, "sam")]
        for name in ("parts", "whole")
    ]
    assert len(params[0]) == 12
    assert params[0] == params[1]


@pytest.mark.parametrize("sampler", each(["grid", "random"], ["random"]))
def test_a_killed_trial_is_resumed(sampler, tmp_path, quick):
    settings = dict(sampler=sampler, space=GRID, methods=("sam",))
    settings |= {} if sampler == "grid" else {"trials": 4}
    quick.events = {3: Killed()}
    with pytest.raises(Killed):
        search(tmp_path, **settings)
    states = [trial.state for trial in trials_of(tmp_path, "sam")]
    assert states.count(TrialState.RUNNING) == 1
    search(tmp_path, **settings)
    done = trials_of(tmp_path, "sam")
    assert [trial.state for trial in done] == 4 * [TrialState.COMPLETE]
    # The third run again, in its folder and with its values; then the rest.
    assert quick.trained[3] == quick.trained[2]
    assert len(quick.trained) == 5


def test_an_epoch_that_is_repeated_is_reported_once(tmp_path, quick, recwarn):
    def run(config, training, folder, on_record):
        on_record({"epoch": 1, "valid_accuracy": 0.5})
        if not quick.trained:
            quick.trained.append(config)
            raise Killed
        return {"final_valid_accuracy": 0.6}

    trials.runs.run = run  # the fixture puts it back
    with pytest.raises(Killed):
        search(tmp_path, trials=1, space=SPACE, methods=("sam",))
    search(tmp_path, trials=1, space=SPACE, methods=("sam",))
    (trial,) = trials_of(tmp_path, "sam")
    assert (trial.value, trial.intermediate_values) == (0.6, {1: 0.5})
    assert not [warning for warning in recwarn if "reported" in str(warning.message)]


def test_another_process_leaves_a_running_trial_alone(tmp_path, quick, monkeypatch):
    """As a search within the training of another one, which holds the same locks."""
    settings = dict(sampler="grid", space=GRID, methods=("sam",), prune=False)
    train, within = quick.run, []

    def run(*arguments):
        if not within:
            within.append(1)
            search(tmp_path, **settings)
            assert [it.output.name for it in quick.trained] == [
                "sam-1",
                "sam-2",
                "sam-3",
            ]
        return train(*arguments)

    monkeypatch.setattr(trials.runs, "run", run)
    search(tmp_path, **settings)
    points = [(it.learning_rate, it.rho) for it in quick.trained]
    assert len(points) == len(set(points)) == 4
    done = trials_of(tmp_path, "sam")
    assert [trial.state for trial in done] == 4 * [TrialState.COMPLETE]


@pytest.mark.thorough
def test_a_trial_that_ends_before_its_lock_is_free_is_not_resumed(
    tmp_path, quick, monkeypatch
):
    settings = dict(sampler="grid", space=("rho=0.1,0.2",), methods=("sam",))
    quick.events = {1: Killed()}
    with pytest.raises(Killed):
        search(tmp_path, **settings)
    lock = study.Shared.lock

    def ended(shared, number):  # by the process that was thought to be killed
        if number == 0:
            shared.study.tell(0, 0.5)
        return lock(shared, number)

    monkeypatch.setattr(study.Shared, "lock", ended)
    search(tmp_path, **settings)
    assert [it.rho for it in quick.trained] == [0.1, 0.2]
    assert trials_of(tmp_path, "sam")[0].value == 0.5


@pytest.mark.thorough
def test_hopeless_trials_are_pruned(tmp_path, quick):
    rates = "learning-rate=0.1,0.11,0.12,0.13,0.14,0.3"
    settings = dict(sampler="grid", space=(rates,), methods=("base",))
    search(tmp_path / "pruned", **settings)
    last = trials_of(tmp_path / "pruned", "base")[-1]
    assert last.state == TrialState.PRUNED
    assert list(last.intermediate_values) == [1]  # a third of the epochs
    search(tmp_path / "whole", prune=False, **settings)
    last = trials_of(tmp_path / "whole", "base")[-1]
    assert last.state == TrialState.COMPLETE
    assert last.value == pytest.approx(0.7)


def test_trials_of_other_lengths_are_not_pruned(tmp_path, quick):
    """Each is lower in an epoch than those with fewer epochs were."""
    lengths = "epochs=3,4,5,6,7,30"
    search(tmp_path, sampler="grid", space=(lengths,), methods=("base",))
    found = [trial.state for trial in trials_of(tmp_path, "base")]
    assert found == [TrialState.COMPLETE] * 6


def test_a_failed_trial_has_a_reason_and_ends_nothing(tmp_path, quick, capsys):
    quick.events = {2: runs.Diverged("the loss was nan\nby step 7"), 4: TypeError()}
    search(tmp_path, sampler="grid", space=GRID, methods=("sam",))
    failed = [
        (trial.number, trial.user_attrs["reason"])
        for trial in trials_of(tmp_path, "sam")
        if trial.state == TrialState.FAIL
    ]
    assert failed == [(1, "the loss was nan by step 7"), (3, "TypeError")]
    assert len(quick.trained) == 4
    assert "| sam | 4, 2 failed | 90.00 |" in capsys.readouterr().out
    table = (tmp_path / "search/search.md").read_text()
    assert "failed: the loss was nan by step 7 |" in table


def test_if_all_fail_it_says_why(tmp_path, quick):
    quick.events = {i: runs.Diverged("the loss was nan") for i in range(1, 5)}
    with pytest.raises(ValueError, match=r"^no trial was completed: the loss was nan$"):
        search(tmp_path, sampler="grid", space=GRID, methods=("sam",))
    assert not (tmp_path / "search/winner.json").exists()


STOPS = [OSError("No space left"), runs.Stopped("stopped by SIGTERM")]


@pytest.mark.parametrize("stop", each(STOPS, STOPS[:1]))
def test_what_is_no_fault_of_the_trial_ends_the_search(stop, tmp_path, quick):
    quick.events = {2: stop}
    with pytest.raises(type(stop)):
        search(tmp_path, sampler="grid", space=GRID, methods=("sam",))
    states = [trial.state.name for trial in trials_of(tmp_path, "sam")]
    assert states == ["COMPLETE", "RUNNING", "WAITING", "WAITING"]


def test_the_winner_is_a_configuration_with_fresh_seeds(tmp_path, quick, capsys):
    flags = [*FLAGS, "--seed", "4", "--seeds", "3", "--label-smoothing", "0.1"]
    methods = ("sam", "lookbehind_sam")
    search(tmp_path, flags, trials=2, space=SPACE, methods=methods)
    assert sorted(it.optimizer for it in quick.trained) == sorted(2 * methods)
    assert {(it.seed, it.seeds) for it in quick.trained} == {(4, 1)}
    folder = tmp_path / "search"
    command = re.search(r"python -m examples.images (.*)", capsys.readouterr().out)
    assert command is not None
    assert command[1] == f"--config {folder / 'winner.json'}"
    parse = functools.partial(configuration.parse, Config, RECIPES, "examples.images")
    overall = parse(command[1].split())
    for method in methods:
        done = [it for it in trials_of(tmp_path, method) if it.value is not None]
        best = max(done, key=lambda trial: trial.value)
        winner = parse(["--config", str(folder / f"winner-{method}.json")])
        assert {name: getattr(winner, name) for name in best.params} == best.params
        assert (winner.optimizer, winner.label_smoothing) == (method, 0.1)
        assert range(winner.seed, winner.seed + winner.seeds) == range(5, 8)
        assert winner.output == folder / f"winner-{method}"
    scores = {
        method: max(it.value for it in trials_of(tmp_path, method) if it.value)
        for method in methods
    }
    assert overall.optimizer == max(scores, key=lambda method: scores[method])


@pytest.mark.thorough
def test_the_report_has_a_table_and_a_picture(tmp_path, picture, capsys):
    search(tmp_path, sampler="grid", space=GRID, methods=("base", "sam"))
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == (
        "| method | trials | validation accuracy (%) | --learning-rate | --rho |"
    )
    assert rows[1] == "| base | 2 | 90.00 | 0.1 |  |"
    assert rows[2] == "| sam | 4 | 90.00 | 0.1 | 0.05 |"
    table = (tmp_path / "search/search.md").read_text()
    assert len(re.findall(r"^\| sam \| \d \| \d\d\.\d\d \| 0\.", table, re.M)) == 5
    assert (tmp_path / "search/search.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_a_database_of_another_search_is_refused(tmp_path, quick):
    settings = dict(sampler="grid", space=("rho=0.1",), methods=("sam",))
    search(tmp_path, **settings)
    longer = ["--epochs", "7"]
    for change, flags, message in [
        ({"space": ("rho=0.1,0.2",)}, FLAGS, r"the search's space .* there, .* here$"),
        ({"seed": 1}, FLAGS, r"the search's seed 0 there, 1 here$"),
        ({}, longer, r"epochs 3 there, 7 here$"),
        ({"methods": ("asam",)}, longer, r"epochs 3 there, 7 here$"),
    ]:
        with pytest.raises(ValueError, match=rf"^--output .* another.*{message}"):
            search(tmp_path, flags, **settings | change)
    quick.digest = "56"
    with pytest.raises(ValueError, match=r"the data's digest 12 there, 56 here$"):
        search(tmp_path, **settings)
    assert len(quick.trained) == 1


def test_a_method_may_be_added_to_a_search(tmp_path, quick):
    search(tmp_path, sampler="grid", space=("rho=0.1",), methods=("sam",))
    search(tmp_path, sampler="grid", space=("rho=0.1",), methods=("sam", "asam"))
    assert [it.optimizer for it in quick.trained] == ["sam", "asam"]


def test_a_folder_of_something_else_is_refused(tmp_path, quick):
    folder = tmp_path / "search"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    with pytest.raises(
        ValueError, match=r"^--output .* holds something other than a search$"
    ):
        search(tmp_path, space=SPACE)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    (folder / "search.db").write_text("no database " * 100)
    with pytest.raises(ValueError, match=r"search\.db can't be read as a search: .*"):
        search(tmp_path, space=SPACE)
    assert not quick.trained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], r"^Error: --trials must be greater than 0; got 0$"),
        (
            ["--sampler", "grid", "--trials", "3"],
            r"^Error: --trials doesn't apply to --sampler grid",
        ),
        (
            ["--seed", "-1"],
            r"^Error: --seed must be greater than or equal to 0; got -1",
        ),
        (
            ["--space", "rho=2:1"],
            r"^Error: --space rho=2:1: must be a range that ends a",
        ),
        (
            ["--methods", "sgd"],
            r"^Error: --methods must be different ones of base, sam",
        ),
        (
            ["--", "--rho", "-1"],
            r"^Error: --rho must be greater than or equal to 0; go",
        ),
    ],
)
def test_the_program_says_what_is_wrong(
    arguments, message, tmp_path, quick, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        program.main(arguments)
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_the_program_can_be_stopped(tmp_path, quick):
    quick.events = {1: KeyboardInterrupt()}
    again = r"^stopped by SIGINT\. Run the same command again to resume\.$"
    with pytest.raises(SystemExit, match=again):
        program.main(["--output", str(tmp_path / "search")])
    (trial,) = trials_of(tmp_path, "lookbehind_sam")
    assert trial.state == TrialState.RUNNING


# As real processes.


def start(folder):
    command = [sys.executable, "-m", "examples.search", "--methods", "base", "sam"]
    command += ["--sampler", "grid", "--space", "learning-rate=0.02,0.1", "rho=0.05"]
    command += ["--output", str(folder), "--", "--epochs", "2"]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_share_a_search_and_one_may_be_killed(tmp_path):
    folder = tmp_path / "search"
    killed, other = start(folder), start(folder)
    while not list(folder.glob("trials/*/log.jsonl")):
        time.sleep(0.05)
        assert killed.poll() is None
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    third = start(folder)
    for process in (other, third):
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
    for method, count in (("base", 2), ("sam", 2)):
        done = trials_of(tmp_path, method)
        assert [trial.state for trial in done] == count * [TrialState.COMPLETE]
        assert len({str(trial.params) for trial in done}) == count
    assert len(list(folder.glob("trials/*/summary.json"))) == 4
    winner = folder / "winner.json"
    command = [sys.executable, "-m", "examples.images", "--config", str(winner)]
    subprocess.run([*command, "--epochs", "1"], check=True, timeout=300)
    best = json.loads(winner.read_text())
    summary = json.loads(
        (folder / f"winner-{best['optimizer']}/summary.json").read_text()
    )
    assert (summary["config"]["seed"], summary["config"]["epochs"]) == (1, 1)


@pytest.mark.slow
def test_a_trial_leaves_no_training_behind(tmp_path):
    """Else its images would stay on the device."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        settings = dict(sampler="grid", space=("learning-rate=0.02,0.1",), prune=False)
        search(tmp_path, ["--epochs", "1", "--optimizer", "base"], **settings)
    assert not [it for it in gc.get_objects() if type(it) is Training]
