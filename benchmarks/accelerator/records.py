"""Records of jobs in a folder: for each a JSON, a log, and files that it leaves."""

import json
import os
from pathlib import Path
from typing import Any

DONE, FAILED, SKIPPED, STOPPED = "done", "failed", "skipped", "stopped"


class Skip(Exception):
    """A job can't be done here; says what is missing."""


class Unfinished(Exception):
    """A job was stopped after saving its work."""


def path(folder: Path, name: str) -> Path:
    """Path of a job's JSON."""
    return folder / "jobs" / f"{name}.json"


def log(folder: Path, name: str) -> Path:
    """Path of a job's output."""
    return folder / "logs" / f"{name}.log"


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """The record of a job; None if there is none."""
    found = path(folder, name)
    return json.loads(found.read_text()) if found.exists() else None


def read_all(folder: Path) -> list[dict[str, Any]]:
    """The records of all jobs, by name."""
    return [
        json.loads(one.read_text()) for one in sorted((folder / "jobs").glob("*.json"))
    ]


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes a JSON atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    os.replace(unfinished, path)
