"""The cost of a step, measured as a user measures it, at its smallest."""

import json

import pytest

from benchmarks import reports
from tests.processes import run


@pytest.mark.slow
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
    reports.main([str(path)])
    assert capsys.readouterr().out == done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
