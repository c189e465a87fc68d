"""The folder of a run: its owner, and files that are never half written or lost."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import itertools
import json
import os
from pathlib import Path
import sys
from typing import Any

import filelock
from tqdm import tqdm

from examples.trainer import command
from examples.trainer import meshes
from examples.trainer import provenance
from examples.trainer.command import Settings

LOCK = ".lock"
CONFIG = "config.json"
PROVENANCE = "provenance.json"

# Files that a run killed at its very start may leave.
STARTED = {LOCK, PROVENANCE, f"{PROVENANCE}.partial", f"{CONFIG}.partial"}

# Settings that may change when a run resumes.
FREE = {
    "config",
    "data_dir",
    "distributed",
    "keep",
    "log",
    "mesh",
    "output",
    "save_every",
    "seeds",
    "test",
}


@contextlib.contextmanager
def claimed(
    config: Settings, folder: Path, fingerprint: dict[str, str], files: dict[str, str]
) -> Iterator[None]:
    """Holds a folder: a new one, or the folder of the same run.

    Args:
      config: of the run.
      folder: of the run.
      fingerprint: digests of its data, by name.
      files: texts that the run keeps besides its configuration, by name.

    Raises:
      ValueError: if it holds other files, or another process holds it.
    """

    def claim() -> None:
        settings = command.as_json(config)
        origin = {**provenance.origin(), "data": fingerprint}
        if (folder / CONFIG).exists():
            compare_settings(folder, settings)
            compare_origins(folder, origin)
        else:  # the configuration comes last: if it is there, so is the rest
            write_text(folder / PROVENANCE, as_text(origin))
            write_text(folder / CONFIG, as_text(settings))
        for name, content in files.items():
            if not (folder / name).exists():
                write_text(folder / name, content)

    meshes.from_first(lambda: check(folder))
    with locked(folder):
        meshes.from_first(claim)
        yield


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out; the operating system unlocks it if this one dies.

    Raises:
      BlockingIOError: if another process holds the folder.
    """
    lock = filelock.FileLock(folder / LOCK)

    def acquire() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise BlockingIOError(
                f"another process is training in {folder}; wait for its end, or give "
                "another --output"
            ) from None

    meshes.from_first(acquire)
    try:
        yield
    finally:
        lock.release()


def check(folder: Path, seeds: int = 1) -> None:
    """Refuses a folder with anything in it but a run, or the runs of several seeds.

    Raises:
      ValueError: if it isn't a folder, holds other files, or is the working directory.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--output must be a folder; {path} is a file")
    if folder.resolve() == Path.cwd():
        raise ValueError(
            "--output must be a folder of its own; got the working directory"
        )
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if seeds > 1:
        runs = {name for name in names if name.startswith("seed-")}
        foreign = names - runs - ({"plots.png"} if runs else set())
    else:
        foreign = set() if {CONFIG, PROVENANCE} <= names else names - STARTED
    if foreign:
        raise ValueError(
            f"--output must be a new folder or that of a run; {folder} holds "
            f"other files ({', '.join(sorted(foreign)[:3])}, ...)"
        )


def compare_settings(folder: Path, ours: dict[str, Any]) -> None:
    """Refuses a run of another configuration, and says how it differs."""
    theirs = read_json(folder / CONFIG)
    differences = [
        f"  {name}: {theirs.get(name)!r} there, {ours.get(name)!r} here"
        for name in sorted(ours.keys() | theirs.keys())
        if name not in FREE and ours.get(name) != theirs.get(name)
    ]
    if differences:
        raise ValueError(
            f"{folder} holds a run of another configuration; give another "
            "--output, or delete it:\n" + "\n".join(differences)
        )


def compare_origins(folder: Path, ours: dict[str, Any]) -> None:
    """Refuses a run on other data or with other numerics; says if versions differ."""
    theirs = read_json(folder / PROVENANCE, ours)
    for name in ours["data"] | theirs["data"]:
        if ours["data"].get(name) != theirs["data"].get(name):
            raise ValueError(
                f"{folder} holds a run on other data: {name} has changed. Restore it, "
                "or give another --output"
            )
    for name, here in ours["numerics"].items():
        if here != (there := theirs["numerics"].get(name)):
            raise ValueError(
                f"{folder} holds a run with {name}={there}; here it is {here}. Change "
                "that, or give another --output"
            )
    for name, here in ours["versions"].items():
        if here != (there := theirs["versions"].get(name)):
            say(f"{folder} holds a run that began with {name} {there}; this is {here}")


def read_json(path: Path, names: Iterable[str] = ()) -> dict[str, Any]:
    """An object of JSON with values of some names.

    Raises:
      ValueError: if the file holds something else.
    """
    wrong = "no object"
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        found, wrong = None, str(error)
    if isinstance(found, dict):
        missing = set(names) - found.keys()
        if not missing:
            return found
        wrong = f"no {min(missing)}"
    raise ValueError(
        f"{path} is damaged ({wrong}). Restore it, or give another --output"
    )


def as_text(values: dict[str, Any]) -> str:
    """Readable JSON, without numbers that JSON doesn't have."""
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def write_text(path: Path, content: str) -> None:
    """Writes a text atomically."""
    write(path, lambda partial: partial.write_text(content))


def write(path: Path, content: Callable[[Path], Any]) -> None:
    """Lets `content` write next to the path, then renames."""
    partial = path.with_name(f"{path.name}.partial")
    content(partial)
    os.replace(partial, path)


def put_aside(path: Path, instead: str) -> None:
    """Renames something damaged so that nothing reads it, and says so.

    Args:
      path: of a file or a folder.
      instead: what happens instead.
    """
    numbers = itertools.count(2)
    aside = path.with_name(f"damaged-{path.name}")
    while aside.exists():
        aside = path.with_name(f"damaged-{path.name}-{next(numbers)}")
    os.rename(path, aside)
    say(f"{path} is damaged: it is kept as {aside.name}, and {instead}")


def say(line: str) -> None:
    """Prints a line to stderr, above the progress."""
    tqdm.write(line, file=sys.stderr)
