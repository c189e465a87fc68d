"""Facts that stand in two files are the same in both."""

from pathlib import Path
import re

import lookbehind_optax

ROOT = Path(__file__).parent.parent


def only(pattern, file):
    (found,) = re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)
    return found


def test_the_citation_names_the_version():
    version = only(r"^version: (\S+)$", "CITATION.cff")
    assert version == lookbehind_optax.__version__


def test_hooks_and_make_run_the_same_ruff():
    pinned = only(r'"ruff==(\S+)"', "pyproject.toml")
    assert only(r"^    rev: v(\S+)", ".pre-commit-config.yaml") == pinned
