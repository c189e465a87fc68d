"""What tables and pictures say about a stream."""

import dataclasses

import pytest

from examples.lifelong import report
from examples.lifelong.config import Lifelong


@pytest.mark.parametrize(
    ("options", "often"),
    [
        ({}, "a single pass"),
        ({"epochs": 5}, "5 epochs a task"),
        ({"glances": 2}, "a single pass, 2 steps on each batch"),
    ],
)
def test_how_often_a_stream_is_learned(options, often):
    config = dataclasses.asdict(Lifelong(**options))
    shown = report.stream(config)
    assert shown == f"digits, 2 classes a task, conv3-narrow, {often}"


def test_results_without_glances_had_one():
    config = dataclasses.asdict(Lifelong())
    del config["glances"]
    assert report.stream(config).endswith("conv3-narrow, a single pass")
