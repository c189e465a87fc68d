"""The reference lists every public name once, and nothing else."""

import inspect
from pathlib import Path
import re
from types import ModuleType

import pytest

import lookbehind_optax
from lookbehind_optax import measure

FOLDER = Path(__file__).parent.parent / "docs" / "reference"


@pytest.mark.parametrize("module", [lookbehind_optax, measure])
def test_the_reference_is_complete(module: ModuleType):
    page = FOLDER / f"{module.__name__.rpartition('.')[2]}.rst"
    lists = re.findall(r"   :nosignatures:\n\n((?:   \w+\n)+)", page.read_text())
    names = [name for group in lists for name in group.split()]
    assert sorted(names) == sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    )
