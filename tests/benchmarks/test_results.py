"""Each result that is kept is what its JSON says, and says what made it."""

import json
from pathlib import Path
import re

import pytest

from benchmarks import reports
from tests.library.members import each

RESULTS = sorted(Path("benchmarks/results").glob("*/*.json"))


def test_there_are_results():
    assert len(RESULTS) > 10


@pytest.mark.parametrize(
    "path", each(RESULTS, RESULTS[::4]), ids=lambda path: path.stem
)
def test_a_result_renders_to_what_is_beside_it(path):
    kept = json.loads(path.read_text())
    assert re.fullmatch("[0-9a-f]{12}", kept["revision"])  # without changes to it
    assert {"jax", "optax"} <= set(kept["versions"])
    assert reports.text(kept) == path.with_suffix(".md").read_text()
    figure = reports.picture(kept)
    assert figure.axes
    assert figure.get_suptitle()
    assert path.with_suffix(".png").stat().st_size > 0
    assert path.with_suffix(".svg").stat().st_size > 0
