"""Atomic checkpoints, whose checksums reveal any flipped bit.

Orbax writes a state in the background, into a folder `partial-STEP`. When all of it is
written, the SHA-256 of every file is added, and the folder is renamed to STEP. So a
folder with a number was once complete, and its checksums tell whether it still is.

Older checkpoints are deleted after training from a newer one has given a finite loss.
"""

from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
import json
import os
from pathlib import Path
import shutil
from typing import Any
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp

from examples.trainer import folders
from examples.trainer import meshes
from examples.trainer.logs import Record
from examples.trainer.provenance import sha256

# In the format of the program sha256sum, with which they can be checked by hand.
SUMS = "SHA256SUMS"


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      state: of the training.
      records: of the epochs until then.
      seconds: that the run took until then.
    """

    state: Any
    records: list[Record]
    seconds: float


class Checkpoints:
    """The checkpoints in a folder that no other process uses."""

    def __init__(self, folder: Path, keep: int):
        """Deletes unfinished checkpoints of a killed process.

        Args:
          folder: of the checkpoints.
          keep: number of checkpoints to keep.
        """
        self.folder, self.keep = folder.absolute(), keep
        self.unproven: int | None = None
        self.orbax = ocp.StandardCheckpointer()
        self.worker = ThreadPoolExecutor(1)
        self.pending: list[Future[None]] = []
        self.writes = jax.process_index() == 0
        if self.writes:
            for partial in self.folder.glob("partial-*"):
                shutil.rmtree(partial)

    def __enter__(self) -> "Checkpoints":
        """Writes nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finishes the checkpoint in progress."""
        try:
            self.wait()
        finally:
            self.worker.shutdown()
            self.orbax.close()

    def steps(self) -> list[int]:
        """Steps of the checkpoints, the newest first."""
        names = [path.name for path in self.folder.glob("*")]
        return sorted(map(int, filter(str.isdigit, names)), reverse=True)

    def save(self, step: int, saved: Saved) -> None:
        """Writes a checkpoint in the background, later than all others."""
        self.wait()
        run = {
            "records": saved.records,
            "seconds": saved.seconds,
            "leaves": describe(saved.state),
        }
        text = folders.as_text(run)
        self.orbax.save(self.folder / f"partial-{step}" / "state", saved.state)
        self.pending.append(self.worker.submit(self._finish, step, text))
        self.unproven = step

    def _finish(self, step: int, run: str) -> None:
        """Completes a checkpoint that Orbax writes."""
        self.orbax.wait_until_finished()
        if self.writes:
            partial = self.folder / f"partial-{step}"
            (partial / "run.json").write_text(run)
            (partial / SUMS).write_text(checksums(partial))
            os.rename(partial, self.folder / str(step))

    def confirm(self) -> None:
        """Trusts the newest checkpoint: training from it has a finite loss."""
        if self.unproven is not None:
            self.unproven = None
            self.pending.append(self.worker.submit(self._prune))

    def _prune(self) -> None:
        """Deletes the oldest."""
        for step in self.steps()[self.keep :] if self.writes else ():
            partial = self.folder / f"partial-{step}"
            os.rename(self.folder / str(step), partial)
            shutil.rmtree(partial)

    def reject(self) -> int | None:
        """Puts the newest checkpoint aside if it wasn't confirmed.

        Returns:
          The step of the newest that was, if there is any.
        """
        self.wait()
        proven = [step for step in self.steps() if step != self.unproven]
        if self.unproven is not None and self.writes:
            aside = self.folder / f"diverged-{self.unproven}"
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(self.folder / str(self.unproven), aside)
        return proven[0] if proven else None

    def wait(self) -> None:
        """Waits until all is written.

        Raises:
          OSError: or a ValueError of Orbax, if something couldn't be written.
        """
        while self.pending:
            self.pending.pop(0).result()

    def restore(self, shapes: Any) -> Saved | None:
        """The newest checkpoint that is intact, or None if there has never been one.

        Damaged ones are put aside.

        Args:
          shapes: of the state's arrays, with their places.

        Raises:
          ValueError: if it is of another structure, or if all are damaged.
        """
        step = meshes.from_first(self._newest)
        if step is None:
            return None
        folder = self.folder / str(step)
        run = json.loads((folder / "run.json").read_text())
        compare(run["leaves"], describe(shapes), folder)
        state = self.orbax.restore(folder / "state", shapes)
        self.unproven = step
        return Saved(state, run["records"], run["seconds"])

    def _newest(self) -> int | None:
        for step in self.steps():
            if intact(self.folder / str(step)):
                return step
            folders.put_aside(self.folder / str(step), "an earlier one is tried")
        if list(self.folder.glob("damaged-*")):
            raise ValueError(
                f"no checkpoint in {self.folder} is intact; give another --output, or "
                "delete that folder to train from the first step"
            )
        return None


def checksums(folder: Path) -> str:
    """The SHA-256 of each file in a folder, except the checksums' own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(
        f"{sha256(path)}  {path.relative_to(folder)}\n"
        for path in files
        if path != folder / SUMS
    )


def intact(folder: Path) -> bool:
    """Whether a checkpoint has the files that were written, as they were written."""
    path = folder / SUMS
    return path.exists() and path.read_bytes() == checksums(folder).encode()


def describe(state: Any) -> dict[str, str]:
    """Dtype and shape of each leaf, by its path."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def compare(there: dict[str, str], here: dict[str, str], folder: Path) -> None:
    """Refuses a state with other leaves, and names the first that differs."""
    for name in here | there:
        was, wanted = there.get(name, "nothing"), here.get(name, "nothing")
        if was != wanted:
            raise ValueError(
                f"the checkpoint {folder} holds another state: {name} is {was}, and "
                f"{wanted} is wanted. Did the network or a library change? Restore "
                "it, or give another --output"
            )
