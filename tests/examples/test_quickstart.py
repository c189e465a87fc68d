"""The quick start, run as a user runs it, at its smallest."""

import pytest

from tests.processes import run


@pytest.mark.slow  # make demo runs it anyway
def test_quickstart(tmp_path):
    picture = tmp_path / "quickstart.png"
    done = run(
        "examples.quickstart", "--seeds", 2, "--gradients", 120, "--output", picture
    )
    assert done.returncode == 0, done.stderr
    for method in ("SGD", "SAM", "Multistep-SAM", "Lookahead-SAM", "Lookbehind-SAM"):
        assert f"\n{method} " in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
