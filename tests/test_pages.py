"""The examples on the pages run, under the strict rules of conftest.py."""

import pathlib
import re

import jax
import pytest

from tests.library.members import each

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    fences = r"^```(?:{code-cell} )?python\n(.*?)^```"
    return re.findall(fences, page.read_text(), re.DOTALL | re.MULTILINE)


def test_pages_have_examples():
    without = {page.stem for page in PAGES if not blocks(page)}
    about = {"changelog", "citing", "contributing", "security", "policy", "questions"}
    assert without == {"protocol", *about}


@pytest.mark.parametrize("page", each(PAGES, PAGES[:1]), ids=lambda page: page.name)
def test_examples_run(page):
    scope = {}
    # Flax and Optax's Adam aren't written for strict promotion.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in blocks(page):
            exec(compile(block, str(page), "exec"), scope)


def test_readme_examples_are_short():
    for block in blocks(ROOT / "README.md"):
        lines = [line for line in block.splitlines() if line.strip()]
        assert len(lines) <= 15
