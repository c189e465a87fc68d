"""Settings are validated as they are made, and say which flag is wrong."""

import dataclasses
from typing import Annotated

import jax
from pydantic import NonNegativeFloat
from pydantic import PositiveInt
import pytest

from examples.trainer import command
from examples.trainer.command import among
from examples.trainer.command import Settings
from examples.trainer.command import settings
from examples.trainer.command import Several


@settings
class Meal(Settings):
    """A meal.

    Attributes:
      guests: who eat it.
      price_each: of a guest.
      dishes: what there is.
    """

    guests: PositiveInt = 2
    price_each: NonNegativeFloat = 1.0
    dishes: Several[Annotated[str, among(("soup", "salad"))]] = ("soup",)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"guests": 0}, "--guests must be greater than 0; got 0"),
        ({"guests": 2**31}, "--guests must be at most 2.14748e+09, which 32 bits can"),
        ({"price_each": -1.0}, "--price-each must be greater than or equal to 0; got"),
        ({"price_each": float("nan")}, "--price-each must be a finite number; got nan"),
        ({"price_each": 1e39}, "--price-each must be at most 3.40282e+38, which 32"),
        ({"dishes": ("soup", "pie")}, "--dishes must be among soup, salad; got pie"),
        ({"dishes": ("pie",)}, "--dishes must be among soup, salad; got pie"),
        ({"dishes": ()}, "--dishes must have at least 1 item, not 0; got ()"),
    ],
)
def test_a_value_that_is_refused(values, line):
    with pytest.raises(command.Invalid) as refused:
        Meal(**values)
    assert str(refused.value).startswith(line)
    with pytest.raises(command.Invalid):
        dataclasses.replace(Meal(), **values)


def test_each_flag_has_a_line():
    with pytest.raises(command.Invalid) as refused:
        Meal(guests=-1, price_each=-2.0)
    first, second = str(refused.value).splitlines()
    assert first.startswith("--guests must")
    assert first.endswith("got -1")
    assert second.startswith("--price-each must")
    assert second.endswith("got -2.0")


def test_flags_and_defaults():
    default = Meal(guests=5)
    read = command.parse(Meal, "meal", ["--price-each", "3"], default)
    assert read == Meal(guests=5, price_each=3.0)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no soup"),
        FileNotFoundError("no soup"),
        FloatingPointError("no soup"),
        command.Invalid("no soup"),
    ],
    ids=type,
)
def test_what_would_fail_again_ends_with_a_line_and_2(error, capsys):
    with pytest.raises(SystemExit) as left, command.explained():
        raise error
    assert left.value.code == 2
    assert capsys.readouterr().err == "Error: no soup\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("no table"), "Error: no table"),
        (BlockingIOError("taken"), "Error: taken"),
        (command.Stopped("stopped"), "stopped. Run the same command again to resume."),
    ],
)
def test_what_may_pass_ends_with_a_line_and_1(error, line):
    with pytest.raises(SystemExit) as left, command.explained():
        raise error
    assert left.value.code == line  # which Python prints, with status 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("64 GiB"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 64 GiB\nat 0x0"),
    ],
)
def test_too_little_memory_ends_with_advice_and_2(error, capsys):
    with pytest.raises(SystemExit) as left, command.explained():
        raise error
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: out of memory: try a smaller batch")
    assert said.endswith("64 GiB)\n")


def test_a_mistake_in_the_program_keeps_its_traceback():
    with pytest.raises(KeyError), command.explained():
        raise KeyError("guests")
