"""Typed and validated settings of a program, from flags, a recipe and a file."""

from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import dataclasses
import json
from pathlib import Path
import re
import sys
from typing import Annotated
from typing import Any
from typing import dataclass_transform
from typing import NoReturn
from typing import TypeVar

import jax
import pydantic

Kind = TypeVar("Kind")
Item = TypeVar("Item")
Several = Annotated[tuple[Item, ...], pydantic.Field(min_length=1)]  # one, at least
INT32, FLOAT32 = 2**31 - 1, 3.4028235e38  # the largest numbers that JAX holds
REFUSED = 2  # status of a program that would fail again, as for an unknown flag


class Invalid(Exception):
    """Invalid settings; each line names a flag, and what is wrong with it."""


class Stopped(Exception):
    """A signal asked the program to stop; its work is saved."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Ends a program with a line instead of a traceback; also decorates `main`.

    The status is 2 for what would fail again, as the same command. It is 1 for a signal
    and for what the operating system reports, such as a full disk, which may pass.

    Raises:
      SystemExit: always, if the program raises one of these errors.
    """
    try:
        yield
    except Stopped as stop:
        sys.exit(f"{stop}. Run the same command again to resume.")
    except (Invalid, ValueError, FileNotFoundError, FloatingPointError) as error:
        _refuse(str(error))
    except OSError as error:
        sys.exit(f"Error: {error}")
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        exhausted = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        if not exhausted:
            raise
        _refuse(
            "out of memory: try a smaller batch, more micro-batches or more devices "
            f"({str(error).partition(chr(10))[0]})"
        )


def _refuse(why: str) -> NoReturn:
    print(f"Error: {why}", file=sys.stderr)
    sys.exit(REFUSED)


@dataclass_transform(frozen_default=True)
def settings(kind: type[Kind]) -> type[Kind]:
    """Makes a frozen dataclass whose values are validated by their annotations.

    Constraints are pydantic's, such as `PositiveInt`; no number may be NaN, infinite,
    or beyond 32 bits. `Settings` is the base of them. A class that derives from several
    settings shows each of them as a group of flags.
    """
    config = pydantic.ConfigDict(allow_inf_nan=False, extra="forbid")
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config=config)(kind)
    return made


@settings
class Settings:
    """Base of all settings."""

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _validate(cls, values: Any, handler: Any) -> Any:
        try:
            made = handler(values)
        except pydantic.ValidationError as error:
            raise Invalid(describe(error)) from None
        if lines := _beyond_32_bits(made):
            raise Invalid("\n".join(lines))
        return made


def _beyond_32_bits(values: Any) -> list[str]:
    """A line for each number that would overflow on a device."""
    lines = []
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            largest = INT32 if isinstance(number, int) else FLOAT32
            if isinstance(number, int | float) and abs(number) > largest:
                lines.append(
                    f"{flag(field.name)} must be at most {largest:g}, which 32 bits "
                    f"can hold; got {number}"
                )
    return lines


def among(names: Collection[str]) -> pydantic.AfterValidator:
    """A constraint: one of some names; the error for any other name lists them."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"must be among {', '.join(names)}")
        return name

    return pydantic.AfterValidator(check)


def describe(error: pydantic.ValidationError) -> str:
    """A line for each flag: what it must be, and what was given."""
    found: dict[str, tuple[list[str], Any]] = {}
    for part in error.errors(include_url=False):
        name = str(part["loc"][0]) if part["loc"] else ""
        message = part["msg"].removeprefix("Value error, ")
        if part["type"] == "unexpected_keyword_argument":
            message = "isn't a setting"
        message = re.sub("^(Input|Tuple) should", "must", message)
        message = message.replace(" after validation", "")
        said, _ = found.setdefault(name, ([], part["input"]))
        # A tuple whose items were all refused is said to be too short as well.
        echo = part["type"] == "too_short" and said
        if message not in said and not echo:
            said.append(message)
    return "\n".join(
        f"{flag(name)} {' or '.join(said)}; got {value}"
        for name, (said, value) in found.items()
    )


def flag(name: str) -> str:
    """A setting's name as a flag on the command line."""
    return f"--{name.replace('_', '-')}"


def parse(
    kind: type[Kind],
    program: str,
    arguments: list[str] | None,
    default: Kind | None = None,
    description: str | None = None,
) -> Kind:
    """Reads flags.

    Args:
      kind: the settings to read.
      program: name of the module that is run.
      arguments: those of the command line if None.
      default: values of flags that aren't given; those of the class if None.
      description: what `--help` says first; the docstring of the class if None.

    Raises:
      Invalid: if a value isn't allowed.
      SystemExit: with tyro's message if a flag is unknown or of another type.
    """
    import tyro  # here, so that programs without flags don't need it

    prog = f"python -m {program}"
    groups: list[Any] = [base for base in kind.__mro__ if base.__bases__ == (Settings,)]
    # All help is in docstrings, which are faster to find than comments.
    quick = tyro.conf.HelptextFromCommentsOff
    if len(groups) == 1:
        # Without a default, there may be flags that are required.
        given: dict[str, Any] = {} if default is None else {"default": default}
        return tyro.cli(
            kind,
            prog=prog,
            description=description,
            args=arguments,
            config=(quick,),
            **given,
        )
    default = kind() if default is None else default
    fields: list[Any] = []
    for group in groups:
        names = [field.name for field in dataclasses.fields(group)]
        values = group(**{name: getattr(default, name) for name in names})
        fields.append(
            (group.__name__.lower(), group, dataclasses.field(default=values))
        )
    shell = dataclasses.make_dataclass(kind.__name__, fields)
    shell.__doc__ = kind.__doc__
    read = tyro.cli(
        shell,
        prog=prog,
        description=description,
        args=arguments,
        config=(quick, tyro.conf.OmitArgPrefixes),
    )
    values: dict[str, Any] = {}
    for name in vars(read):
        values |= vars(getattr(read, name))
    return kind(**values)


def load(kind: type[Any], path: Path) -> dict[str, Any]:
    """Values of a file that `save` wrote, or a part of one.

    Raises:
      ValueError: if the file holds no object of settings of this kind.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"--config must be a file of JSON; {path} isn't ({error})"
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"--config must hold an object of flags; {path} doesn't")
    unknown = sorted(values.keys() - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        raise ValueError(f"--config {path} holds unknown flags: {', '.join(unknown)}")
    return values


def save(values: Any, path: Path) -> None:
    """Writes what `load` reads."""
    path.write_text(json.dumps(as_json(values), indent=1) + "\n")


def as_json(values: Any) -> dict[str, Any]:
    """Settings as JSON holds them."""
    return json.loads(json.dumps(dataclasses.asdict(values), default=str))
