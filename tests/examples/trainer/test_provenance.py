"""The revision that results name."""

import shutil
import subprocess

import pytest

from examples.trainer import provenance


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """With one commit, of a program and a result."""
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for file in (tmp_path / "program.py", results / "a.json"):
        file.write_text("1\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "program.py"))
    user = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*user, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.skipif(shutil.which("git") is None, reason="Git isn't installed")
def test_results_are_no_change_of_the_code(repository):
    clean = provenance.revision()
    assert len(clean) == 12
    (repository / "benchmarks" / "results" / "a.json").write_text("2\n")
    assert provenance.revision() == clean
    (repository / "program.py").write_text("2\n")
    assert provenance.revision() == f"{clean}-dirty"


def test_without_a_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "program.py"))
    assert provenance.revision() == "unknown"
