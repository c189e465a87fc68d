"""docs/training.md: its commands run, on small data."""

import functools
import json
import pathlib
import re
import shlex

import jax
import pytest
from safetensors.numpy import save_file

from examples.images.__main__ import main
from examples.images.models import MODELS
from examples.images.models import VisionTransformer
from tests.examples.images.files import write_folder
from tests.examples.images.files import write_table
from tests.examples.images.test_models import make_tensors

PAGE = (pathlib.Path(__file__).parents[3] / "docs/training.md").read_text()
PART = PAGE[PAGE.index("\n## Data\n") : PAGE.index("\n## Optimizers\n")]
COMMANDS = re.findall(r"^python -m examples\.images (.*)$", PART, re.MULTILINE)
# So that each of them takes seconds.
SMALL = ["--epochs", "1", "--batch-size", "8", "--image-size", "8", "--output", "run"]
QUICK = ["--model", "perceptron:Perceptron", "--optimizer", "base"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What the page speaks of, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_folder(pathlib.Path("photos"), train=8)
    write_table(pathlib.Path("cifar10-hf"), count=12)
    (module,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PART, re.DOTALL)
        if "class Perceptron" in block
    ]
    pathlib.Path("perceptron.py").write_text(module)
    tensors = {name.removeprefix("vit."): x for name, x in make_tensors().items()}
    save_file(tensors, "model.safetensors")
    vit = functools.partial(VisionTransformer, patch=2, width=8, depth=2, heads=2)
    monkeypatch.setitem(MODELS, "vit-b16", vit)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def test_the_page_shows_everything():
    for words in ("folder:", "hf:", "--label-noise", "--validation", "--pretrained"):
        assert len([c for c in COMMANDS if words in c]) > 0
    assert re.search(r"--dataset.*path", PART)  # arrays, in Python: see test_pages.py
    blocks = re.findall(r"```\w*\n(.*?)```", PART, re.DOTALL)
    for block in blocks:
        assert len([line for line in block.splitlines() if line.strip()]) <= 10


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "command",
    [
        # Whose weights and refusals test_training.py and test_bad_input.py check.
        pytest.param(
            command,
            marks=pytest.mark.slow if "vit" in command else pytest.mark.thorough,
        )
        for command in COMMANDS
    ],
)
def test_a_command_of_the_page(command):
    quick = [] if "--recipe vit" in command else QUICK
    main([*shlex.split(command), *SMALL, *quick])
    (record,) = map(json.loads, pathlib.Path("run/log.jsonl").read_text().splitlines())
    summary = json.loads(pathlib.Path("run/summary.json").read_text())
    assert ("flipped_accuracy" in record) == ("--label-noise" in command)
    assert ("test_accuracy" in summary) == ("--validation" in command)
