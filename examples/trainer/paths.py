"""Paths as flags: inputs must exist, and outputs must be writable."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _readable_file(path: Path) -> Path:
    if path.is_dir():
        raise ValueError("must be a file, not a folder")
    if not os.path.exists(path):
        raise ValueError("must be a file that exists")
    if not os.access(path, os.R_OK):
        raise ValueError("must be a file that may be read")
    return path


def _data_folder(path: Path) -> Path:
    # An existing one need not be writable: datasets may be there already.
    if path.is_dir() and os.access(path, os.R_OK | os.X_OK):
        return path
    return _output_folder(path)


def _output_folder(path: Path) -> Path:
    parents = (path.absolute(), *path.absolute().parents)
    there = next(parent for parent in parents if os.path.exists(parent))
    if not there.is_dir():
        raise ValueError(
            f"must be a folder that is there or can be made; {there} is none"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"must be a folder to write to, which {there} isn't")
    return path


def output_file(suffix: str) -> AfterValidator:
    """A file of one kind that can be written, in a folder that may have to be made."""

    def check(path: Path) -> Path:
        if path.suffix.lower() != suffix:
            raise ValueError(f"must end in {suffix}")
        if path.is_dir():
            raise ValueError("must be a file, not a folder")
        if path.exists() and not os.access(path, os.W_OK):
            raise ValueError("must be a file that may be written")
        _output_folder(path.parent)
        return path

    return AfterValidator(check)


InputFile = Annotated[Path, AfterValidator(_readable_file)]
DataFolder = Annotated[Path, AfterValidator(_data_folder)]
OutputFolder = Annotated[Path, AfterValidator(_output_folder)]
