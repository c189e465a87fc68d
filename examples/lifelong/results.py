"""What was learned so far, in a file from which the same command continues."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from examples.lifelong.config import Lifelong
from examples.trainer import folders
from examples.trainer.provenance import provenance

# Settings that the numbers don't depend on.
FREE = ("data_dir", "output", "methods")


class Results:
    """The accuracies of all methods and seeds so far.

    Attributes:
      values: the configuration, what the numbers depend on, and for each method its
        accuracies (seeds, T, T), the gradients of a run and the seconds of all of them.
    """

    def __init__(self, config: Lifelong, path: Path | None) -> None:
        """Reads what the file has.

        Args:
          config: of the comparison.
          path: of the file, as JSON; None to keep nothing.

        Raises:
          ValueError: if it has results of another configuration, or is damaged.
        """
        settings = dataclasses.asdict(config)
        for name in FREE:
            del settings[name]
        self.path = path
        self.values: dict[str, Any] = {
            **provenance(),
            "config": settings,
            "methods": {},
        }
        if path is not None and path.exists():
            begun = folders.read_json(path, self.values)
            compare(path, begun, self.values)
            self.values = begun

    def count(self, method: str) -> int:
        """How many seeds of a method are done, from the first one on."""
        return len(self.values["methods"].get(method, {"accuracies": ()})["accuracies"])

    def add(
        self, method: str, accuracies: np.ndarray, gradients: int, seconds: float
    ) -> None:
        """Adds the next seed of a method, and writes the file."""
        nothing = {"accuracies": [], "gradients": 0, "seconds": 0.0}
        of_method = self.values["methods"].setdefault(method, nothing)
        of_method["accuracies"].append(accuracies.tolist())
        of_method["gradients"] = gradients
        of_method["seconds"] += seconds
        if self.path is not None:
            folders.write_text(self.path, folders.as_text(self.values))


def compare(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Refuses results of another configuration; says if another version began them.

    Raises:
      ValueError: with how the configurations differ.
    """
    there, here = theirs["config"], ours["config"]
    differences = [
        f"  {name}: {there.get(name)!r} there, {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differences:
        raise ValueError(
            f"{path} has results of another configuration; give another --output, or "
            "delete it:\n" + "\n".join(differences)
        )
    for name in ours.keys() - {"config", "methods"}:
        if theirs[name] != ours[name]:
            folders.say(
                f"{path} began with {name} {theirs[name]}; this is {ours[name]}"
            )
