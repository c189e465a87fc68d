"""Bad input to a benchmark ends it before its work, with a line that names it."""

import pytest

from benchmarks import checks
from benchmarks import reports

BAD = [
    ("step_time", ["--models", "nonet"], "--models must be among .*; got nonet"),
    ("step_time", ["--ks", "2", "-1"], "--ks must be at least 0; got -1"),
    ("step_time", ["--batch-size", "0"], "--batch-size must be at least 1; got 0"),
    ("step_time", ["--repetitions", "0"], "--repetitions must be at least 1; got 0"),
    ("peers", ["--models", "nonet"], "--models must be among .*; got nonet"),
    ("peers", ["--ks", "0"], "--ks must be at least 1; got 0"),
    ("scaling", ["examples", "--k", "-1"], "--k must be at least 0; got -1"),
    ("train_throughput", ["--steps", "0"], "--steps must be at least 1; got 0"),
    ("train_throughput", ["--models", "decoder"], "--models must be among .*decoder"),
]


@pytest.mark.parametrize(("benchmark", "options", "message"), BAD)
def test_bad_numbers_and_names(benchmark, options, message, tmp_path, monkeypatch):
    output = tmp_path / "results.json"
    monkeypatch.setattr("sys.argv", ["", *options, "--output", str(output)])
    with pytest.raises(SystemExit, match=f"^Error: {message}"):
        reports.module(benchmark).main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "benchmark",
    ["comparisons", "lifelong", "robustness", "sharpness", "trade_off"],
)
def test_a_folder_that_cannot_be_made(benchmark, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    output = tmp_path / "file" / "results"
    monkeypatch.setattr("sys.argv", ["", "--output", str(output)])
    with pytest.raises(SystemExit, match=r"^Error: --output: nothing can be written"):
        reports.module(benchmark).main()
    assert (tmp_path / "file").read_text() == "kept"


def test_a_path_that_cannot_be_written(tmp_path):
    # The table is written beside the JSON, and would have replaced it.
    with pytest.raises(SystemExit, match=r"--output must end in \.json; got .*\.md"):
        checks.writable(tmp_path / "results.md")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(SystemExit, match=r"--output must be a file; .*folder\.json"):
        checks.writable(tmp_path / "folder.json")
    path = tmp_path / "new" / "results.json"
    assert checks.writable(path) == path
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("held", ["", "[1]", "{}"])
def test_what_is_no_result(held, tmp_path, monkeypatch):
    path = tmp_path / "found.json"
    path.write_text(held)
    monkeypatch.setattr("sys.argv", ["", str(path)])
    with pytest.raises(SystemExit, match=r"^Error: .*found\.json must hold the result"):
        reports.main()
    path.unlink()
    with pytest.raises(SystemExit, match=r"^Error: .*No such file.*found\.json"):
        reports.main()
