"""What is begun, ended and kept, with small scripts in place of the jobs."""

import sys
import time

import pytest

from benchmarks.accelerator import records
from benchmarks.accelerator import runner
from benchmarks.accelerator.limits import DEVICES
from benchmarks.accelerator.plan import Job
from benchmarks.accelerator.plan import START_S

LIMITS = DEVICES["NVIDIA H100"]
BEGIN = """
import json, pathlib, signal, sys, time
from benchmarks.accelerator import records
asked = json.loads(sys.argv[1])
folder = pathlib.Path(asked["folder"])
"""
DONE = """
record = {"name": asked["name"], "status": "done", "seconds": 0.0}
records.write(records.path(folder, asked["name"]), record)
"""
SLEEP = "print('asleep', flush=True)\ntime.sleep(60)\n"
SAVE = f"""
def save(*_):
    print("saved")
    sys.exit({runner.UNFINISHED})
signal.signal(signal.SIGTERM, save)
"""
KINDS = {
    "works": DONE,
    "breaks": "sys.exit('it broke')",
    "lacks": f"print('no images')\nsys.exit({runner.SKIPPED})",
    "sleeps": SLEEP,
    "saves": SAVE + SLEEP,
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder, for jobs whose kind is a script of `KINDS`."""

    def command(request):
        kind = next(kind for kind in KINDS if f'"kind": "{kind}"' in request)
        return [sys.executable, "-c", BEGIN + KINDS[kind], request]

    monkeypatch.setattr(runner, "command", command)
    return runner.Place(tmp_path, tmp_path, "", {})


def run(place, *jobs, seconds=100.0, again=False):
    """Statuses of the jobs afterwards; "" where there is none."""
    runner.run(jobs, LIMITS, place, time.monotonic() + seconds, again)
    known = [records.read(place.folder, job.name) for job in jobs]
    return [record["status"] if record else "" for record in known]


def test_what_fits_is_done_in_order(place, capsys):
    long = Job("long", "works", {}, host_s=100 - START_S + 1)
    assert run(place, long, Job("a", "works", {}), Job("b", "works", {})) == [
        *("", "done", "done")
    ]
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["a", "b"]


def test_what_is_done_is_not_done_again(place, capsys):
    job = Job("a", "works", {})
    run(place, job)
    capsys.readouterr()
    assert run(place, job, again=True) == ["done"]
    assert capsys.readouterr().out == ""


def test_a_failure_is_kept_with_its_log_and_tried_again_when_asked(place, monkeypatch):
    job = Job("a", "breaks", {})
    assert run(place, job, Job("b", "works", {})) == ["failed", "done"]
    record = records.read(place.folder, "a")
    assert record["log"] == ["it broke"]
    assert record["reason"] == "ended with status 1"
    monkeypatch.setitem(KINDS, "breaks", DONE)
    assert run(place, job) == ["failed"]
    assert run(place, job, again=True) == ["done"]


def test_a_job_has_a_limit(place, monkeypatch):
    monkeypatch.setattr(Job, "limit", lambda *_: 1.5)
    assert run(place, Job("a", "sleeps", {}), Job("b", "works", {})) == [
        *("failed", "done")
    ]
    assert "took more than its 2 s" in records.read(place.folder, "a")["reason"]


def test_the_minutes_end_a_job_which_then_needs_more(place, monkeypatch):
    monkeypatch.setattr(Job, "estimate", lambda *_: 1.0)
    job = Job("a", "sleeps", {})
    assert run(place, job, seconds=2) == ["stopped"]
    record = records.read(place.folder, "a")
    assert record["seconds"] >= 2
    assert runner.needed(job, LIMITS, record) == 1.25 * record["seconds"]


def test_a_job_that_resumes_is_stopped_in_time_to_save(place, monkeypatch):
    monkeypatch.setattr(runner, "WORTHWHILE_S", 1)
    job = Job("a", "saves", {}, resumes=True)
    seconds = runner.GRACE_S + 2
    assert run(place, job, seconds=seconds) == ["stopped"]
    record = records.read(place.folder, "a")
    assert record["reason"] == "saved"
    assert record["seconds"] < seconds
    monkeypatch.setitem(KINDS, "saves", DONE)
    assert run(place, job, seconds=seconds) == ["done"]


def test_a_job_without_its_packages_is_skipped_until_they_are_there(place, monkeypatch):
    job = Job("a", "works", {}, needs=("json", "no_such_package"))
    assert run(place, job) == ["skipped"]
    reason = records.read(place.folder, "a")["reason"]
    assert reason == "needs no_such_package, not installed here"
    monkeypatch.setattr(runner, "absent", lambda job: [])
    assert run(place, job) == ["done"]


def test_a_job_may_say_what_it_lacks(place):
    assert run(place, Job("a", "lacks", {})) == ["skipped"]
    assert records.read(place.folder, "a")["reason"] == "no images"
