"""Measurements of trained networks, at their smallest."""

import json

import numpy as np
import pytest

from benchmarks.paper import flatness
from benchmarks.paper.sizes import SIZES
from benchmarks.paper.trained import Networks
from examples.images import data
from tests.processes import run


def test_batches_are_of_the_first_images():
    size = SIZES["smoke"].flatness._replace(examples=10, batch_size=4)
    images = np.arange(30)
    batches = Networks(size, None, None).batches(data.Examples(images, -images))  # pyright: ignore
    assert [batch.tolist() for batch, _ in batches] == [
        *([0, 1, 2, 3], [4, 5, 6, 7], [8, 9])
    ]
    assert all((labels == -images).all() for images, labels in batches)


@pytest.mark.slow
def test_smoke(tmp_path):
    options = ["--runs", tmp_path / "runs", "--output", tmp_path / "results"]
    for name in flatness.MEASURES:
        done = run("benchmarks.paper.flatness", "--measure", name, *options)
        assert done.returncode == 0, done.stderr
        assert "| Lookbehind-SAM |" in done.stdout
        results = tmp_path / "results" / f"{name}_smoke"
        assert json.loads(results.with_suffix(".json").read_text())["revision"]
        assert results.with_suffix(".md").read_text() in done.stdout
        assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    # The networks of the first served the others: one for SGD, two for each method.
    assert len(list((tmp_path / "runs/smoke").iterdir())) == 9
