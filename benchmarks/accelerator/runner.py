"""Runs jobs, each in its own process, while there is time."""

from collections.abc import Iterable
import importlib.util
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any
from typing import NamedTuple

from benchmarks.accelerator import records
from benchmarks.accelerator.limits import Limits
from benchmarks.accelerator.plan import Job

GRACE_S = 30  # from SIGTERM to SIGKILL, for a job to save what it has
WORTHWHILE_S = 90  # for a part of a job that resumes
TAIL = 15  # lines of a log that a record keeps
SKIPPED, UNFINISHED = 3, 4  # exit statuses of benchmarks.accelerator.job


class Place(NamedTuple):
    """The context that all jobs of a call share.

    Attributes:
      folder: of all results.
      data: folder of the packed images.
      revision: of this code, where Git can't tell; "" where it can.
      environment: variables of the jobs, besides those of this process.
    """

    folder: Path
    data: Path
    revision: str
    environment: dict[str, str]


def run(
    jobs: Iterable[Job], limits: Limits, place: Place, deadline: float, again: bool
) -> None:
    """Runs the jobs that fit, in order, and skips those that don't.

    Args:
      jobs: what there is to do.
      limits: of the device.
      place: where.
      deadline: when all must be over, by `time.monotonic`.
      again: whether to retry failed jobs.
    """
    for job in jobs:
        known = records.read(place.folder, job.name)
        if is_over(known, again):
            continue
        left = deadline - time.monotonic()
        if left < needed(job, limits, known):
            continue
        if missing := absent(job):
            reason = f"needs {', '.join(missing)}, not installed here"
            record = {**base(job), "status": records.SKIPPED, "reason": reason}
            records.write(records.path(place.folder, job.name), record)
        else:
            record = attempt(job, limits, place, left)
        seconds = f" in {record['seconds']:.0f} s" if "seconds" in record else ""
        reason = f": {record['reason']}" if "reason" in record else ""
        print(f"{job.name}: {record['status']}{seconds}{reason}", flush=True)


def is_over(known: dict[str, Any] | None, again: bool) -> bool:
    """Whether a job shouldn't be tried, or not again."""
    if known is None:
        return False
    over = (records.DONE,) if again else (records.DONE, records.FAILED)
    return known["status"] in over


def needed(job: Job, limits: Limits, known: dict[str, Any] | None) -> float:
    """Seconds that must be left for a job to be started."""
    estimate = job.estimate(limits)
    if job.resumes:
        return min(estimate, WORTHWHILE_S) + GRACE_S
    if known is not None and known["status"] == records.STOPPED:
        return max(estimate, 1.25 * known["seconds"])  # than which it takes longer
    return estimate


def absent(job: Job) -> list[str]:
    """Packages that a job needs but that aren't installed."""
    return [name for name in job.needs if importlib.util.find_spec(name) is None]


def base(job: Job) -> dict[str, Any]:
    """The first fields of every job's record."""
    return {"name": job.name, "kind": job.kind, "options": job.options}


def attempt(job: Job, limits: Limits, place: Place, left: float) -> dict[str, Any]:
    """Runs a job for at most the given seconds, and returns its record."""
    limit = min(job.limit(limits), left)
    limit = limit - GRACE_S if job.resumes else limit
    begun = time.monotonic()
    status = call(job, place, limit)
    seconds = round(time.monotonic() - begun, 1)
    if status == 0:
        record = records.read(place.folder, job.name)
        assert record is not None
        return record
    lines = records.log(place.folder, job.name).read_text(errors="replace").splitlines()
    record = {**base(job), "seconds": seconds}
    if status == SKIPPED:
        record |= {"status": records.SKIPPED, "reason": lines[-1]}
    elif status == UNFINISHED:
        record |= {"status": records.STOPPED, "reason": lines[-1]}
    elif status is None and (job.resumes or limit == left):
        record |= {"status": records.STOPPED, "reason": "the minutes were over"}
    else:
        ended = f"ended with status {status}"
        reason = f"took more than its {limit:.0f} s" if status is None else ended
        record |= {"status": records.FAILED, "reason": reason, "log": lines[-TAIL:]}
    records.write(records.path(place.folder, job.name), record)
    return record


def call(job: Job, place: Place, limit: float) -> int | None:
    """Runs a job's process.

    Returns:
      Its exit status; None if it was stopped and didn't then end by itself.
    """
    request = json.dumps(
        {
            **base(job),
            "folder": str(place.folder.absolute()),
            "data": str(place.data.absolute()),
            "revision": place.revision,
        }
    )
    log = records.log(place.folder, job.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command(request),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
            env={**os.environ, **place.environment, **environment(job)},
            start_new_session=True,  # so that what it starts ends with it
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return end(process)
        finally:
            end(process)  # also if this process is stopped


def command(request: str) -> list[str]:
    """The command that runs a job in its own process."""
    return [sys.executable, "-m", "benchmarks.accelerator.job", request]


def environment(job: Job) -> dict[str, str]:
    """Variables of a job: JAX leaves memory to PyTorch if it also needs the device."""
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if job.kind == "peers" else {}


def end(process: "subprocess.Popen[Any]") -> int | None:
    """Asks a process to end, and kills it if it doesn't, with all that it started.

    Returns:
      Its status if it ended by itself with one; None if a signal ended it.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return None if process.returncode < 0 else process.returncode
