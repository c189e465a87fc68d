"""The programs to copy, one for each library of networks: they learn, and are short."""

import ast
from pathlib import Path

import pytest

from tests.processes import run

EXAMPLES = Path(__file__).parents[2] / "examples"
LIBRARIES = ["linen", "nnx", "equinox", "haiku"]
# At the root of examples/, to be copied: they need nothing else of this project.
ALONE = ["quickstart", "multihost", *(f"with_{library}" for library in LIBRARIES)]


each_library = pytest.mark.parametrize("library", LIBRARIES)


@pytest.mark.thorough
@each_library
def test_it_learns(library):
    done = run(f"examples.with_{library}")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.9


@each_library
def test_it_is_short(library):
    lines = (EXAMPLES / f"with_{library}.py").read_text().splitlines()
    assert len(lines) < 60


def test_programs_at_the_root_can_be_copied():
    assert {path.stem for path in EXAMPLES.glob("*.py")} - {"__init__"} == set(ALONE)
    for name in ALONE:
        tree = ast.parse((EXAMPLES / f"{name}.py").read_text())
        imported = {
            module.split(".")[0]
            for node in ast.walk(tree)
            for module in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or "."]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert "lookbehind_optax" in imported
        assert not imported & {"examples", "benchmarks", "tests", "."}, name
