"""Every kind of job, tiny, on a CPU, as a user tries it."""

import importlib.util

import pytest

from benchmarks.accelerator import plan
from benchmarks.accelerator import records
from tests.processes import run


@pytest.mark.slow
def test_smoke(tmp_path):
    flags = "--smoke", "--minutes", 30, "--output", tmp_path
    done = run("benchmarks.accelerator", *flags)
    assert done.returncode == 0, done.stderr
    for job in plan.smoke():
        record = records.read(tmp_path, job.name)
        here = all(map(importlib.util.find_spec, job.needs))
        assert record["status"] == ("done" if here else "skipped"), record
    tests = records.read(tmp_path, "correct-trajectories")["results"]["tests"]
    assert len(tests) == 3
    assert {test["outcome"] for test in tests.values()} == {"passed"}
    report = run("benchmarks.accelerator", "--report", tmp_path)
    assert report.returncode == 0, report.stderr
    assert "| decoder | 2 | fp32 | 1 |" in (tmp_path / "report.md").read_text()


def test_a_cpu_is_no_accelerator(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = run("benchmarks.accelerator", "--output", tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: JAX finds no accelerator; --smoke tries all on a CPU\n"
    )
