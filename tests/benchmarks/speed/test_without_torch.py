"""Where PyTorch isn't installed, the benchmark of peers says what to install."""

import re
import sys

import pytest

from benchmarks.speed import networks
from benchmarks.speed import peers


def test_peers_without_pytorch_say_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    monkeypatch.setattr(networks, "make", pytest.fail)
    with pytest.raises(SystemExit, match="2"):
        peers.main(["--models", "decoder", "--output", str(tmp_path / "results.json")])
    assert re.search(r"^Error: .*pip install -e '\.\[peers\]'", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
