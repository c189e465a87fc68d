"""Settings of pytest for the evidence."""

import pytest

from benchmarks.evidence.questions import QUESTIONS
from tests.benchmarks.evidence.asked import question


@pytest.fixture
def ask(monkeypatch):
    """Sets the question that is called "asked"."""

    def set_question(**values):
        monkeypatch.setitem(QUESTIONS, "asked", question(**values))

    return set_question
