"""Where the records of a run go: log.jsonl, and TensorBoard and W&B if asked."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import json
import math
from pathlib import Path
import shutil
from typing import Any
from typing import Protocol
import uuid

import jax

from examples.trainer import command
from examples.trainer import folders
from examples.trainer.config import RunConfig

# Numbers by name; None is what isn't finite, which JSON doesn't have.
Record = dict[str, Any]


class Log(Protocol):
    """A destination of records, which starts with those of a checkpoint."""

    def append(self, record: Record) -> None:
        """Adds an epoch."""
        ...

    def close(self) -> None:
        """Completes the files."""
        ...


@contextlib.contextmanager
def opened(
    config: RunConfig, folder: Path, records: list[Record]
) -> Iterator[Callable[[Record], None]]:
    """Yields a function that adds a record to all logs.

    Args:
      config: of the run, which says which logs there are.
      folder: of the run.
      records: all that the logs should hold at first.
    """
    with contextlib.ExitStack() as stack:
        logs: list[Log] = []
        if jax.process_index() == 0:
            logs.append(JsonLines(folder, records))
            if "tensorboard" in config.log:
                logs.append(TensorBoard(folder, records))
            if "wandb" in config.log:
                logs.append(WeightsAndBiases(config, folder, records))
        for log in logs:
            stack.callback(log.close)

        def append(record: Record) -> None:
            for log in logs:
                log.append(record)

        yield append


class JsonLines:
    """log.jsonl, a line for each epoch."""

    def __init__(self, folder: Path, records: list[Record]):
        """Writes the records; a log that doesn't match them is put aside."""
        self.path = folder / "log.jsonl"
        if self.path.exists() and not continues(self.path, records):
            folders.put_aside(self.path, "the log is rewritten from the checkpoint")
        folders.write_text(self.path, "".join(map(line, records)))

    def append(self, record: Record) -> None:
        """Adds a line."""
        with self.path.open("a") as log:
            log.write(line(record))

    def close(self) -> None:
        """The file is whole after each line."""


def line(record: Record) -> str:
    """A record in JSON."""
    return json.dumps(record, allow_nan=False) + "\n"


def continues(path: Path, records: list[Record]) -> bool:
    """Whether a log is of these records, and of later ones; the last may be cut off."""
    *lines, _ = path.read_bytes().split(b"\n")
    try:
        found = [json.loads(line) for line in lines]
    except ValueError:
        return False
    return found[: len(records)] == records


def finite(values: dict[str, float]) -> Record:
    """A record, with None for what isn't finite."""
    return {k: value if math.isfinite(value) else None for k, value in values.items()}


class TensorBoard:
    """Scalars in the folder `tensorboard`."""

    def __init__(self, folder: Path, records: list[Record]):
        """Begins new files."""
        from tensorboardX import SummaryWriter

        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.events = SummaryWriter(str(folder / "tensorboard"))
        for record in records:
            self.append(record)

    def append(self, record: Record) -> None:
        """Adds a point to each curve."""
        for name, value in record.items():
            if value is not None:
                self.events.add_scalar(name, value, int(record["step"]))
        self.events.flush()

    def close(self) -> None:
        """Completes the file."""
        self.events.close()


class WeightsAndBiases:
    """A run on Weights & Biases, the same one however often it resumes.

    Its project and all else come from the environment, as in WANDB_PROJECT.
    """

    def __init__(self, config: RunConfig, folder: Path, records: list[Record]):
        """Begins a run, or continues the one that the folder names.

        Raises:
          ValueError: if the package is missing, or the run can't be started.
        """
        try:
            import wandb
        except ImportError as error:
            raise ValueError(
                "--log wandb needs the package: pip install wandb"
            ) from error
        path = folder / "wandb-id"
        known = path.exists()
        identity = path.read_text() if known else uuid.uuid4().hex
        try:
            self.run = wandb.init(
                id=identity,
                resume="allow",
                dir=folder,
                name=folder.name,
                config=command.as_json(config),
            )
        except wandb.Error as error:
            raise ValueError(
                f"--log wandb can't start: {error} WANDB_MODE=offline needs no account"
            ) from error
        folders.write_text(path, identity)
        for record in () if known else records:
            self.append(record)

    def append(self, record: Record) -> None:
        """Adds a point to each curve."""
        known = {name: value for name, value in record.items() if value is not None}
        self.run.log(known, step=int(record["step"]))

    def close(self) -> None:
        """Sends the remaining records."""
        self.run.finish()
