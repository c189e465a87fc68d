"""The trainer beside its step, measured as a user measures it, at its smallest."""

import json

import pytest

from tests.processes import run


@pytest.mark.slow
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
