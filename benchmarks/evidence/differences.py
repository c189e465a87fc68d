"""Rows compared seed by seed, and what a difference says about a claim."""

from typing import Any
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05  # of the tests, and so of the 95 % intervals


class Difference(NamedTuple):
    """The difference of two rows, in points of final test accuracy, seed by seed.

    Attributes:
      mean: over the seeds that both have.
      low: end of the 95 % interval by Student's t.
      high: its other end.
      p: of the two-sided test that the mean is 0.
      n: number of seeds.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int


def seeds(results: dict[str, Any], label: str) -> dict[str, dict[str, Any]]:
    """The runs of a row by seed."""
    return results["rows"].get(label, {}).get("seeds", {})


def values(results: dict[str, Any], label: str, name: str) -> np.ndarray:
    """A number of each seed that has it."""
    found = [it[name] for it in seeds(results, label).values() if name in it]
    return np.array(found)


def difference(results: dict[str, Any], row: str, over: str) -> Difference | None:
    """Of one row over another; None if they share fewer than two seeds."""
    ours, theirs = seeds(results, row), seeds(results, over)
    points = [
        100 * (ours[seed]["test_accuracy"] - theirs[seed]["test_accuracy"])
        for seed in sorted(ours.keys() & theirs.keys())  # as sums depend on the order
    ]
    if len(points) < 2 or np.ptp(points) == 0:
        return None
    mean, error = float(np.mean(points)), float(stats.sem(points))
    student = stats.t(len(points) - 1)
    half = float(student.ppf(1 - LEVEL / 2)) * error
    p = 2 * float(student.sf(abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p, len(points))


def holm(p_values: list[float]) -> list[float]:
    """Holm's correction for as many tests as there are."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.minimum(1, np.maximum.accumulate(factors * np.sort(p_values)))
    return list(corrected[np.argsort(order)])


def corrected(found: list[Difference | None]) -> list[Difference | None]:
    """Differences with p-values corrected for the number of tests.

    A test that wasn't run counts as one with a p of 1, so that running it later can
    only lower the p-values of the others.
    """
    fixed = holm([1.0 if it is None else it.p for it in found])
    return [
        None if it is None else it._replace(p=p)
        for it, p in zip(found, fixed, strict=True)
    ]


def verdict(found: Difference | None) -> str:
    """What a difference says about a claim."""
    if found is None:
        return "not run"
    if found.p >= LEVEL:
        return "not shown"
    return "holds" if found.mean > 0 else "the opposite holds"


def half_width(points: np.ndarray) -> float:
    """Half the width of the 95 % interval of a mean; with two points it is huge."""
    if len(points) < 3:
        return 0.0
    return float(stats.t.ppf(1 - LEVEL / 2, len(points) - 1) * stats.sem(points))
