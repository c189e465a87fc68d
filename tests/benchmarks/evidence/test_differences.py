"""Statistics by hand."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.evidence import differences
from tests.benchmarks.evidence.asked import results


def test_a_difference_is_of_the_paired_test():
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(size=(2, 6))
    found = differences.difference(results(SAM=ours, SGD=theirs), "SAM", "SGD")
    assert found is not None
    expected: Any = stats.ttest_rel(100 * ours, 100 * theirs)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(100 * np.mean(ours - theirs))
    assert found.n == 6


def test_a_difference_needs_two_seeds():
    assert differences.difference(results(SAM=[0.5], SGD=[0.4]), "SAM", "SGD") is None
    assert differences.difference(results(SAM=[0.5, 0.6]), "SAM", "SGD") is None


def test_holm_by_hand():
    # Sorted they are multiplied by 4, 3, 2 and 1, and none falls below one before it.
    assert differences.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx(
        [0.06, 0.04, 0.06, 0.06]
    )
    assert differences.holm([0.6, 0.7]) == [1, 1]
    assert differences.holm([]) == []


def test_what_was_not_run_counts():
    found = differences.Difference(1.0, 0.5, 1.5, 0.02, 5)
    # Multiplied by 3 and 2, with the third, of p = 1, behind them.
    fixed = differences.corrected([found, None, found._replace(p=0.01)])
    assert [it and it.p for it in fixed] == pytest.approx([0.04, None, 0.03])


def test_verdicts():
    found = differences.Difference(1.0, 0.5, 1.5, 0.01, 5)
    assert differences.verdict(found) == "holds"
    assert differences.verdict(found._replace(mean=-1.0)) == "the opposite holds"
    assert differences.verdict(found._replace(p=0.06)) == "not shown"
    assert differences.verdict(None) == "not run"
