"""What a user runs, run as a user does, at its smallest."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import reports
from examples import quickstart


def run(*arguments):
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.slow  # make demo runs it anyway
def test_quickstart(tmp_path):
    picture = tmp_path / "quickstart.png"
    done = run(
        "examples.quickstart", "--seeds", 2, "--gradients", 60, "--output", picture
    )
    assert done.returncode == 0, done.stderr
    for method in ("SGD", "SAM", "ASAM", "Lookahead-SAM", "Lookbehind-SAM"):
        assert f"\n{method} " in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "bad", [["--seeds", "1"], ["--gradients", "100"], ["--output", "plot.jpg"]]
)
def test_quickstart_refuses_what_it_cannot_do(bad, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["quickstart", *bad])
    with pytest.raises(SystemExit, match="2"):
        quickstart.main()
    message = capsys.readouterr().err
    assert bad[0] in message
    assert bad[1] in message


@pytest.mark.parametrize("library", ["linen", "nnx", "equinox", "haiku"])
def test_with_each_library(library):
    name = f"examples.with_{library}"
    done = run(name)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.9
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert len(pathlib.Path(spec.origin).read_text().splitlines()) < 60


def test_step_time(tmp_path, capsys):
    path = tmp_path / "new" / "results.json"
    done = run(
        "benchmarks.speed.step_time",
        *["--models", "decoder", "--members", "sam", "--ks", 0, 1, 2],
        *["--precisions", "fp32", "--repetitions", 2, "--output", path],
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(path.read_text())
    assert written["device"].startswith("cpu")
    (row,) = written["rows"]
    assert (row["member"], row["k"]) == ("sam", 1)  # it has no other
    assert len(row["samples"]) == 2
    # Up to the parameters' own arithmetic, the FLOPs of k + 1 gradients.
    assert abs(row["flops_over_gradients"] - 1) < 0.02
    assert done.stdout.count("| decoder |") == 1
    table, picture = path.with_suffix(".md"), path.with_suffix(".png")
    assert table.read_text() in done.stdout
    # Both come from the JSON alone.
    picture.unlink()
    reports.render(path)
    assert capsys.readouterr().out == done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_peers_without_pytorch_say_what_to_install(tmp_path):
    code = """
import sys
sys.modules["pytorch_optimizer"] = None
from benchmarks.speed import peers
peers.main()
"""
    options = ["--models", "decoder", "--ks", "1", "--precisions", "fp32"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options, "--output", tmp_path / "results.json"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pip install -e '.[peers]'" in done.stderr.splitlines()[-1]


def test_train_throughput(tmp_path):
    results = tmp_path / "new" / "results.json"
    done = run(
        "benchmarks.speed.train_throughput",
        *["--dataset", "digits", "--models", "convnet-bn", "--steps", 3],
        *["--precisions", "fp32", "--repetitions", 2, "--output", results],
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(results.read_text())
    assert written["device"].startswith("cpu")
    (row,) = written["rows"]
    assert (row["images"], row["gradients"], len(row["samples"])) == (192, 9, 2)
    assert done.stdout.count("| convnet-bn |") == 1
