"""Radii and standard deviations: one positive number or several."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

Positive = jax.typing.ArrayLike | Sequence[float]


def positive(name: str, value: Any) -> list[float]:
    """One positive number or several, as a list."""
    values = np.atleast_1d(np.asarray(value))
    if values.ndim != 1 or not values.size or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} must be a positive number or a vector of them; got {value!r}."
        )
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"{name} must be positive and finite; got {value!r}.")
    return values.astype(np.float64).tolist()
