"""Measures on an accelerator whatever fits into the given minutes.

    python -m benchmarks.accelerator --minutes 8 --output runs/accelerator
    python -m benchmarks.accelerator --plan --output runs/accelerator
    python -m benchmarks.accelerator --report runs/accelerator

The most valuable jobs run first, each in its own process. Finished jobs in the folder
aren't repeated. All of it needs jax, flax, optax, chex and pytest; comparisons with
PyTorch need PyTorch, and training jobs need what examples/trainer needs.
"""

# Unlike elsewhere, argparse reads the flags: a machine with an accelerator may lack
# pydantic and tyro.
import argparse
from collections.abc import Sequence
import math
from pathlib import Path
import signal
import sys
import time
from typing import Any

from benchmarks.accelerator import cifar
from benchmarks.accelerator import limits
from benchmarks.accelerator import plan
from benchmarks.accelerator import records
from benchmarks.accelerator import runner
from benchmarks.accelerator.plan import Job


def parse(arguments: list[str] | None) -> Any:
    """Reads flags."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accelerator",
        description="Measure on an accelerator whatever fits into the given minutes.",
        allow_abbrev=False,
    )
    flag = parser.add_argument
    flag("--minutes", type=minutes, default=8, help="time limit (default: 8)")
    flag(
        "--output",
        type=Path,
        help="folder for the results; finished jobs aren't repeated",
    )
    flag(
        "--data",
        type=Path,
        default=Path("data"),
        help="folder with CIFAR-10 as packed by benchmarks.accelerator.cifar",
    )
    flag("--plan", action="store_true", help="list the jobs, and do nothing")
    flag("--smoke", action="store_true", help="run a tiny job of each kind, on a CPU")
    flag("--again", action="store_true", help="retry failed jobs")
    flag("--revision", default="", help="revision of this code, if Git can't tell")
    flag("--report", type=Path, metavar="DIR", help="render the results in a folder")
    asked = parser.parse_args(arguments)
    if (asked.output is None) == (asked.report is None):
        parser.error("either --output or --report must be given, a folder")
    return asked


def minutes(text: str) -> float:
    """A flag's value."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0; got {text}")
    return value


def main(arguments: list[str] | None = None) -> None:
    """Does what the command line asks for."""
    asked = parse(arguments)
    if asked.report is not None:
        from benchmarks.accelerator import report  # which needs matplotlib and tyro

        report.write(asked.report)
        return
    jobs = list(plan.smoke() if asked.smoke else plan.jobs())
    if asked.plan:
        print(listed(jobs, asked.output))
        return
    # Also ends the job in progress.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    place = runner.Place(asked.output, asked.data, asked.revision, {})
    if asked.smoke:
        place = for_smoke(place)
    deadline = time.monotonic() + 60 * asked.minutes
    device = probe(place)
    found = limits.find(device)
    if not asked.smoke and found is None:
        print(f"{device} isn't among the known devices; {assumption()}")
    used = found or limits.DEVICES[limits.ASSUMED]
    runner.run(jobs, used, place, deadline, asked.again)
    print(listed(jobs, asked.output))


def for_smoke(place: runner.Place) -> runner.Place:
    """The place of a smoke run: a CPU, and images of noise."""
    import numpy as np

    random, folder = np.random.default_rng(0), place.folder / "noise"
    images = [random.integers(0, 256, (n, 32, 32, 3), np.uint8) for n in (64, 32)]
    labels = [np.arange(len(split), dtype=np.uint8) % 10 for split in images]
    cifar.pack(cifar.Arrays(images[0], labels[0], images[1], labels[1]), folder)
    return place._replace(data=folder, environment={"JAX_PLATFORMS": "cpu"})


def probe(place: runner.Place) -> str:
    """The kind of the device, as JAX names it.

    Raises:
      SystemExit: if an accelerator is required but there is none, or the folder holds
        results of another device.
    """
    before = records.read(place.folder, "device")
    job = Job("device", "device", {})
    record = runner.attempt(job, limits.DEVICES[limits.ASSUMED], place, 120)
    if record["status"] != records.DONE:
        sys.exit(f"Error: JAX doesn't start: {'; '.join(record.get('log', []))}")
    found = record["results"]
    if found["platform"] == "cpu" and not place.environment:
        sys.exit("Error: JAX finds no accelerator; --smoke tries all on a CPU")
    known = before and before["status"] == records.DONE and before["results"]
    if known and known["kind"] != found["kind"]:
        assert before is not None
        records.write(records.path(place.folder, "device"), before)
        sys.exit(
            f"Error: --output must be a folder for one kind of device; {place.folder} "
            f"holds results of {known['kind']}, and this is {found['kind']}"
        )
    return found["kind"]


def assumption() -> str:
    """Which device the estimates assume if this one isn't known."""
    return f"estimates are for an {limits.ASSUMED}"


def listed(jobs: Sequence[Job], folder: Path) -> str:
    """A line for each job, and one about all that are left."""
    device = records.read(folder, "device")
    kind = device["results"]["kind"] if device and "results" in device else ""
    found = limits.find(kind)
    about = f"estimates are for this {kind}" if found else assumption()
    used = found or limits.DEVICES[limits.ASSUMED]
    width = max(len(job.name) for job in jobs)
    lines = [f"{'job':{width}}  estimate    limit  state ({about})"]
    left = 0.0
    for job in jobs:
        known = records.read(folder, job.name)
        state = known["status"] if known else "left"
        estimate, limit = job.estimate(used), job.limit(used)
        left += 0 if state == records.DONE else estimate
        lines.append(f"{job.name:{width}}  {estimate:6.0f} s {limit:6.0f} s  {state}")
    lines.append(f"{left / 60:.0f} minutes are left to do, by these estimates.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
