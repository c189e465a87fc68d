"""Counts, and numbers that may be schedules."""

import math
import numbers
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from lookbehind_optax import _precision

ScalarOrSchedule = jax.typing.ArrayLike | optax.Schedule


def check_count(name: str, value: Any, minimum: int) -> None:
    """Checks a count, which shapes the program and so must be a Python integer."""
    if isinstance(value, (jax.Array, jax.core.Tracer)):
        raise TypeError(
            f"{name} must be a Python integer, because it shapes the program; "
            f"got a JAX array. (Under optax.inject_hyperparams, pass "
            f"static_args=('{name}',).)"
        )
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer; got {describe(value)}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value}.")


def check_number(
    name: str, value: Any, *, schedule: bool = True, below: float = math.inf
) -> None:
    """Checks for a non-negative scalar, or for a schedule if `schedule` allows it.

    Traced values, and the values that a schedule will return, can't be checked here.
    """
    if schedule and callable(value):
        return
    wanted = "a non-negative number" + (" or an optax schedule" if schedule else "")
    wanted += "" if below == math.inf else f" below {below}"
    types: Any = (int, float, np.ndarray, np.generic, jax.Array)
    is_number = isinstance(value, types) and not isinstance(value, (bool, np.bool_))
    if not is_number or jnp.iscomplexobj(value):
        raise TypeError(f"{name} must be {wanted}; got {describe(value)}.")
    _check_scalar(name, value)
    is_known = not isinstance(value, jax.core.Tracer)
    if is_known and not 0 <= value < below:  # false for a NaN
        raise ValueError(f"{name} must be {wanted}, and finite; got {value}.")


def at_step(name: str, value: Any, count: jax.Array, params: Any) -> jax.Array:
    """The number, or the schedule's value at `count`, as wide as the parameters."""
    if callable(value):
        value = value(count)
        _check_scalar(name, value)
    return jnp.asarray(value, _precision.wide_dtype(params))


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Checks that the value is one of the choices."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {listed}; got {value!r}.")


def _check_scalar(name, value):
    if jnp.shape(value) != ():
        raise ValueError(
            f"{name} must be a scalar, or a schedule of scalars; "
            f"got shape {jnp.shape(value)}."
        )


def describe(value: Any) -> str:
    """A value and its type, for a message."""
    return f"{value!r} of type {type(value).__name__}"
