"""The tests that an accelerator must pass, each with its outcome."""

from pathlib import Path
from typing import Any

import pytest


class Outcomes:
    """A pytest plugin that records the result of each test.

    Attributes:
      tests: outcome, seconds, what was measured, and what was wrong, by test.
    """

    def __init__(self):
        """Nothing has run yet."""
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Records the call of a test, or what went wrong before and after it."""
        if report.when != "call" and report.passed:
            return
        kept = {
            "outcome": report.outcome,
            "seconds": round(report.duration, 2),
            "measured": dict(report.user_properties),
        }
        if report.failed:
            kept["wrong"] = str(report.longrepr).splitlines()[-15:]
        self.tests[report.nodeid] = kept


def measure(files: list[str], chosen: str, **unused: Any) -> dict[str, Any]:
    """Runs tests.

    Args:
      files: of tests, or folders of them.
      chosen: which of them to run, in `pytest -k` syntax; all if empty.
      unused: what other jobs need.

    Raises:
      RuntimeError: if no test could be run.
    """
    del unused
    outcomes = Outcomes()
    arguments = ["-m", "accelerator", "-q", "-p", "no:cacheprovider"]
    # The rules for the library's other tests are for CPUs; and a warning of a
    # device's libraries isn't our failure.
    arguments += ["--confcutdir", "tests/accelerator", "-W", "default"]
    arguments += ["-k", chosen] if chosen else []
    status = pytest.main([*arguments, *map(str, map(Path, files))], [outcomes])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest {files} ended with {status!r}")
    return {"tests": outcomes.tests}
