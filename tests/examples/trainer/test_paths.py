"""Paths that are read must be there; those that are written must be possible."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import TypeAdapter
from pydantic import ValidationError
import pytest

from examples.trainer import paths

KINDS = {
    "input": TypeAdapter(paths.InputFile),
    "data": TypeAdapter(paths.DataFolder),
    "output": TypeAdapter(paths.OutputFolder),
    "json": TypeAdapter(Annotated[Path, paths.output_file(".json")]),
}


@pytest.fixture
def here(tmp_path):
    (tmp_path / "file.json").write_text("kept")
    (tmp_path / "folder.json").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("input", "file.json"),
        ("data", "folder.json"),
        ("data", "new/folder"),
        ("output", "folder.json"),
        ("output", "new/folder"),
        ("json", "file.json"),
        ("json", "new/other.json"),
        ("json", "new/other.JSON"),
    ],
)
def test_what_is_taken_and_left_as_it_is(kind, path, here):
    assert KINDS[kind].validate_python(here / path) == here / path
    assert sorted(file.name for file in here.iterdir()) == ["file.json", "folder.json"]


@pytest.mark.parametrize(
    ("kind", "path", "message"),
    [
        ("input", "folder.json", "must be a file, not a folder"),
        ("input", "missing", "must be a file that exists"),
        ("data", "file.json", "must be a folder that is there or can be made"),
        ("output", "file.json", "must be a folder that is there or can be made"),
        ("output", "file.json/new", "must be a folder that is there or can be made"),
        ("json", "other.md", "must end in .json"),
        ("json", "folder.json", "must be a file, not a folder"),
        ("json", "file.json/a.json", "must be a folder that is there or can be made"),
    ],
)
def test_what_is_refused(kind, path, message, here):
    with pytest.raises(ValidationError, match=message):
        KINDS[kind].validate_python(here / path)


@pytest.mark.parametrize(
    ("kind", "path", "message"),
    [
        ("input", "file.json", "must be a file that may be read"),
        ("json", "file.json", "must be a file that may be written"),
        ("output", "folder.json", "must be a folder to write to"),
        ("output", "folder.json/new", "must be a folder to write to"),
        ("data", "folder.json", "must be a folder to write to"),
    ],
)
def test_what_may_not_be_touched(kind, path, message, here, monkeypatch):
    # Modes would not do: root, as who tests may run, can touch everything.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValidationError, match=message):
        KINDS[kind].validate_python(here / path)
