"""Where PyTorch isn't installed, the benchmark of peers says what to install."""

import sys

import pytest

from benchmarks.speed import networks
from benchmarks.speed import peers


def test_peers_without_pytorch_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    monkeypatch.setattr(networks, "make", pytest.fail)
    with pytest.raises(SystemExit, match=r"^Error: .*pip install -e '\.\[peers\]'"):
        peers.main(["--models", "decoder", "--output", str(tmp_path / "results.json")])
    assert not list(tmp_path.iterdir())
