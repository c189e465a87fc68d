"""Experiments on trained networks, at their smallest, as a user runs them."""

import json

import pytest

from tests.examples.test_programs import run


@pytest.mark.slow
def test_smoke(tmp_path):
    options = ["--runs", tmp_path / "runs", "--output", tmp_path / "results"]
    for name in ("trade_off", "sharpness", "robustness"):
        done = run(f"benchmarks.{name}", "--size", "smoke", *options)
        assert done.returncode == 0, done.stderr
        assert "| Lookbehind-SAM |" in done.stdout
        results = tmp_path / "results" / f"{name}_smoke"
        assert json.loads(results.with_suffix(".json").read_text())["revision"]
        assert results.with_suffix(".md").read_text() in done.stdout
        assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    # The networks of the first served the others: one for SGD, two for each method.
    assert len(list((tmp_path / "runs/smoke").iterdir())) == 7
