"""The experiment of lifelong learning, at its smallest."""

import json

import numpy as np
import pytest

from tests.processes import run


@pytest.mark.slow
def test_smoke(tmp_path):
    folders = ("--output", tmp_path / "new", "--runs", tmp_path / "runs")
    done = run("benchmarks.paper.lifelong", *folders)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "new/lifelong_smoke_digits_1.json").read_text())
    assert written["device"].startswith("cpu")
    found = written["methods"]
    assert [run["gradients"] for run in found.values()] == [20, 60, 60]
    assert {np.shape(run["accuracies"]) for run in found.values()} == {(2, 5, 5)}
    assert (tmp_path / "new/lifelong_smoke_digits_1.md").read_text() in done.stdout
    assert "| C-MAML, Lookahead | yes |" in done.stdout
    picture = tmp_path / "new/lifelong_smoke_digits_1.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
