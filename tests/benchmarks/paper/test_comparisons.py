"""Comparisons: all runs of a question are possible; its table is worked out by hand."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats

from benchmarks.paper import comparisons
from benchmarks.paper import experiment
from benchmarks.paper.questions import configure
from benchmarks.paper.questions import Name
from benchmarks.paper.questions import Question
from benchmarks.paper.questions import QUESTIONS
from benchmarks.paper.questions import Row
from benchmarks.paper.sizes import SIZES
from benchmarks.paper.trained import METHODS
from examples.images import data
from examples.images.training import Training
from tests.library.members import each
from tests.processes import run

(SETTING,) = SIZES["smoke"].comparisons
DIGITS = data.load("digits")


def cell(accuracies, alphas=None):
    log = [
        {"test_accuracy": accuracy, "alpha": alpha}
        for accuracy, alpha in zip(
            accuracies, alphas or [1.0] * len(accuracies), strict=True
        )
    ]
    return {
        "summary": {
            "config": {"batch_size": 32, "epochs": len(accuracies)},
            "gradient_evaluations": 100,
            "wall_seconds": 2.0,
            "final_test_accuracy": accuracies[-1],
            "revision": "abc",
        },
        "log": log,
    }


def question(*rows, **options):
    return Question("?", lambda setting: list(rows), **options)


def compared(monkeypatch, asked, cells):
    """What `compare` makes of runs that return, or raise, what `cells` holds."""

    def fake(config, dataset, folder):
        found = cells[config.rho][config.seed]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(comparisons, "run", fake)
    return comparisons.compare(asked, SETTING, DIGITS, comparisons.Path("nowhere"))


def results(rows, asked):
    return {
        "question": "a",
        "x": asked.x,
        "shows": asked.shows,
        "counts": asked.counts,
        "rows": json.loads(json.dumps(rows)),
    }


def cells_of(table, label):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.mark.parametrize(
    ("train", "images"), [(None, "all"), (2000, "the first 2,000")]
)
def test_the_title_names_data_network_and_seeds(train, images):
    setting = {"dataset": "digits", "train": train, "model": "mlp"}
    rows = [{"seeds": [0, 1]}, {"seeds": []}]
    title = comparisons.title({"about": "Why?", "setting": setting, "rows": rows})
    assert title.startswith(f"Why?\ndigits, {images} images, mlp; n = 2 seeds")


def test_all_questions_are_named():
    assert set(Name.__args__) == set(QUESTIONS)


@pytest.mark.parametrize("size", each(SIZES, ["smoke"]))
@pytest.mark.parametrize("name", each(QUESTIONS, [*QUESTIONS][::3]))
def test_every_row_is_a_run_of_its_own(name, size):
    for setting in SIZES[size].comparisons:
        rows = QUESTIONS[name].rows(setting)
        assert len({row.label for row in rows}) == len(rows)
        configs = [configure(setting, QUESTIONS[name], row) for row in rows]
        folders = {comparisons.folder_name(config, setting) for config in configs}
        assert len(folders) == len(rows)
        assert comparisons.REFERENCE in {row.label for row in rows}
        if size == "smoke":
            for config in configs:
                Training(config, DIGITS)  # which refuses what makes no sense


@pytest.mark.parametrize("name", QUESTIONS)
def test_sgd_with_as_many_gradients_is_always_there(name):
    settings = [size.comparisons for size in SIZES.values()]
    for setting in itertools.chain(*settings):
        rows = QUESTIONS[name].rows(setting)
        compared = {row.options.get("k") for row in rows if row.times == 1}
        longer = {row.times - 1 for row in rows if row.options == METHODS["SGD"]}
        assert compared - {None} <= longer - {0}


def test_rows_of_equal_price_have_it():
    (setting,) = SIZES["small"].comparisons
    gradients = []
    for row in QUESTIONS["price"].rows(setting)[1:]:
        config = configure(setting, QUESTIONS["price"], row)
        (phase,) = Training(config, DIGITS).phases
        per_epoch = phase.gradients * config.batch_size / setting.config.batch_size
        gradients.append(config.epochs * per_epoch)
    np.testing.assert_allclose(gradients, gradients[0], rtol=0.01)


def test_part_of_a_dataset():
    part = experiment.load("digits", None, SETTING.train, SETTING.test)
    assert len(part.train.images) == len(part.train.labels) == SETTING.train
    assert len(part.test.images) == len(part.test.labels) == SETTING.test
    np.testing.assert_array_equal(part.train.labels, DIGITS.train.labels[:256])


def test_table_by_hand(monkeypatch):
    asked = question(Row("SAM", {"rho": 1.0}), Row("other", {"rho": 2.0}))
    rows = compared(
        monkeypatch,
        asked,
        {1.0: [cell([0.5]), cell([0.7])], 2.0: [cell([0.5, 0.6]), cell([0.6, 0.9])]},
    )
    table = comparisons.table(results(rows, asked))
    assert cells_of(table, "SAM")[4:] == ["60 ± 14", "2", "", ""]
    # Half a minibatch of 64 counts half; differences are 10 and 20 points, of which
    # t = 15 / (5√2 / √2) = 3, and P(|T| > 3) = 1 - 2 arctan(3)/π with one degree.
    p = 1 - 2 * np.arctan(3) / np.pi
    assert cells_of(table, "other") == [
        *["other", "2", "50", "2 ± 0", "75 ± 21", "2", "+15.00", f"{p:.2g}"]
    ]


def test_p_value_is_of_the_paired_test():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 5))
    expected = stats.ttest_rel(ours, theirs).pvalue  # pyright: ignore
    assert comparisons.p_value(ours - theirs) == f"{expected:.2g}"
    assert comparisons.p_value(np.array([1.0])) == "–"
    assert comparisons.p_value(np.array([1.0, 1.0])) == "–"


def test_failed_runs_are_reported_and_do_not_stop_the_others(monkeypatch, capsys):
    asked = question(*(Row(f"row {i}", {"rho": float(i)}) for i in range(1, 4)))
    gone = ValueError("no luck")
    rows = compared(
        monkeypatch,
        asked,
        {
            1.0: [gone, gone],
            2.0: [gone, cell([0.5])],
            3.0: [cell([0.5]), cell([0.5])],
        },
    )
    assert "row 1, seed 0, failed: no luck" in capsys.readouterr().out
    assert [row["seeds"] for row in rows] == [[], [1], [0, 1]]
    assert rows[1]["failed"] == {0: "ValueError: no luck"}
    shown = results(rows, asked)
    table = comparisons.table(shown)
    assert cells_of(table, "row 1")[1:] == ["failed"] * 7
    assert cells_of(table, "row 2")[5] == "1"
    comparisons.figure(shown)


def test_differences_are_of_the_seeds_that_both_have():
    reference = {"seeds": [0, 2], "accuracy": [0.5, 0.7]}
    row = {"seeds": [1, 2], "accuracy": [0.9, 0.8]}
    np.testing.assert_allclose(comparisons.differences(row, reference), [10.0])


def test_gradients_until_an_accuracy(monkeypatch):
    asked = question(
        Row("Multistep-SAM", {"rho": 1.0}), Row("fast", {"rho": 2.0}), counts=True
    )
    rows = compared(
        monkeypatch,
        asked,
        {
            1.0: [cell([0.1, 0.2, 0.4, 0.5])] * 2,
            # The mean over the seeds is there after two of four epochs.
            2.0: [cell([0.5, 0.4, 0.5, 0.5]), cell([0.2, 0.6, 0.6, 0.6])],
        },
    )
    table = comparisons.table(results(rows, asked))
    assert [cells_of(table, label)[-1] for label in ("Multistep-SAM", "fast")] == [
        "100",
        "50",
    ]
    assert comparisons.gradients_until(rows[0], 0.9) is None


def named(drawing):
    """What the legend names."""
    (legend,) = drawing.legends
    return [text.get_text() for text in legend.get_texts()]


def test_picture_over_a_number(monkeypatch):
    asked = question(
        Row("SAM", {"rho": 1.0}),
        Row("a", {"rho": 2.0}, line="line", x=2),
        Row("b", {"rho": 3.0}, line="line", x=5),
        x="k",
    )
    found = {rho: [cell([0.1 * rho]), cell([0.2 * rho])] for rho in (1.0, 2.0, 3.0)}
    drawing = comparisons.figure(results(compared(monkeypatch, asked, found), asked))
    (axes,) = drawing.axes
    (container,) = axes.containers
    line, _, _ = container.lines
    assert list(line.get_xdata()) == [2, 5]
    assert list(line.get_ydata()) == pytest.approx([30, 45])
    assert named(drawing) == ["SAM", "line"]


def test_picture_where_all_rows_over_the_number_failed(monkeypatch):
    asked = question(
        Row("SAM", {"rho": 1.0}), Row("a", {"rho": 2.0}, line="line", x=2), x="k"
    )
    broken = ValueError("too hot")
    found = {1.0: [cell([0.5]), cell([0.6])], 2.0: [broken, broken]}
    drawing = comparisons.figure(results(compared(monkeypatch, asked, found), asked))
    (axes,) = drawing.axes
    assert not axes.containers
    assert named(drawing) == ["SAM"]


def test_alpha_is_shown_where_it_is_at_work(monkeypatch):
    asked = question(
        Row("SAM", {"rho": 1.0}), Row("Lookbehind", {"rho": 2.0}), shows="alpha"
    )
    found = {
        1.0: [cell([0.5, 0.5]), cell([0.6, 0.7])],
        2.0: [cell([0.5, 0.5], [0.2, 0.4]), cell([0.5, 0.5], [0.4, 0.8])],
    }
    shown = results(compared(monkeypatch, asked, found), asked)
    table = comparisons.table(shown)
    assert cells_of(table, "SAM")[-2:] == ["", ""]
    assert cells_of(table, "Lookbehind")[-2:] == ["0.300", "0.600"]
    (line,) = comparisons.figure(shown).axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [0.3, 0.6])


@pytest.mark.slow
def test_a_comparison_is_resumed(tmp_path):
    options = ["--question", "figure-9", "--size", "smoke"]
    options += ["--runs", tmp_path / "runs", "--output", tmp_path / "results"]
    done = run("benchmarks.paper.comparisons", *options)
    assert done.returncode == 0, done.stderr
    again = run("benchmarks.paper.comparisons", *options)
    assert again.stdout == done.stdout  # with the same seconds: nothing was trained
    (path,) = (tmp_path / "results").glob("*.json")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads(path.read_text())["rows"]
    assert [row["seeds"] for row in rows] == [[0, 1]] * 4
