"""Each tutorial has a notebook with the same cells."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "notebooks.py"
spec = importlib.util.spec_from_file_location("notebooks", SCRIPT)
assert spec
assert spec.loader
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)


@pytest.mark.parametrize("page", notebooks.PAGES, ids=lambda page: page.stem)
def test_a_notebook_is_its_tutorial(page):
    # If this fails: make notebooks
    assert notebooks.path(page).read_text() == notebooks.notebook(page)


def test_there_is_no_other_notebook():
    there = sorted(SCRIPT.parent.joinpath("notebooks").iterdir())
    assert there == [notebooks.path(page) for page in notebooks.PAGES]
