"""Logs: what each destination holds, also after an interruption."""

import json
import math
import struct
import sys

import pytest
from tensorboardX.proto import event_pb2

from examples.trainer import logs
from examples.trainer.config import RunConfig
from tests.examples.trainer.tiny import log
from tests.examples.trainer.tiny import outcome
from tests.examples.trainer.tiny import Tiny
from tests.examples.trainer.tiny import train

RECORDS = [{"epoch": 1, "step": 4, "loss": 0.5}, {"epoch": 2, "step": 8, "loss": None}]
NEXT = {"epoch": 3, "step": 12, "loss": 0.25}


def written(folder, records=RECORDS, **values):
    """Begins the logs with some records, and adds one."""
    with logs.opened(RunConfig(**values), folder, list(records)) as append:
        append(NEXT)


def test_lines_of_json_begin_with_the_records_of_a_checkpoint(tmp_path):
    written(tmp_path, [*RECORDS, NEXT])
    written(tmp_path)
    assert log(tmp_path) == [*RECORDS, NEXT]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_line_that_was_cut_is_written_again(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(map(logs.line, RECORDS)) + '{"epoch": 3, "st')
    written(tmp_path)
    assert log(tmp_path) == [*RECORDS, NEXT]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "held",
    [
        b"",
        b"not JSON\n",
        b"\xff\xfe\n",
        b'{"epoch": 1, "step": 4, "loss": 0.6}\n{"epoch": 2, "step": 8}\n',
        b'{"epoch": 1, "step": 4, "loss": 0.5}\n',
    ],
)
def test_a_log_that_is_not_the_checkpoints_is_put_aside(held, tmp_path, capsys):
    (tmp_path / "log.jsonl").write_bytes(held)
    written(tmp_path)
    assert log(tmp_path) == [*RECORDS, NEXT]
    assert (tmp_path / "damaged-log.jsonl").read_bytes() == held
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/log.jsonl is damaged: it is kept as damaged-")


def test_json_has_no_nan():
    record = logs.finite({"loss": 1.0, "grad_norm": math.inf, "alpha": math.nan})
    assert record == {"loss": 1.0, "grad_norm": None, "alpha": None}
    assert json.loads(logs.line(record)) == record
    with pytest.raises(ValueError, match="not JSON compliant"):
        logs.line({"loss": math.nan})


def test_what_a_run_saw_that_is_not_finite_is_null(tmp_path):
    train(tmp_path, Tiny(changes={5: {"grad_norm": math.inf}}))
    assert [record["grad_norm"] for record in log(tmp_path)] == [1.0, None, 1.0]
    assert outcome(tmp_path)[0] == log(tmp_path)


def scalars(path):
    """Of a file of events; each has its length before it, and a checksum after both."""
    content, start, found = path.read_bytes(), 0, []
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        event = event_pb2.Event.FromString(content[start + 12 : start + 12 + length])
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
        start += 16 + length
    return found


def test_tensorboard_holds_the_records(tmp_path):
    for _ in range(2):  # an interrupted run leaves no events that it forgot
        written(tmp_path, log=("tensorboard",))
        (events,) = (tmp_path / "tensorboard").iterdir()
        assert scalars(events) == [
            (name, record["step"], pytest.approx(value, rel=1e-6))
            for record in [*RECORDS, NEXT]
            for name, value in record.items()
            if value is not None
        ]


class FakeRun:
    """As far as a log needs one of wandb.init."""

    def __init__(self, **values):
        self.values, self.logged, self.finished = values, [], False

    def log(self, record, step):
        self.logged.append((step, record))

    def finish(self):
        self.finished = True


def test_wandb_continues_the_same_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    begun = []

    def init(**values):
        begun.append(FakeRun(**values))
        return begun[-1]

    monkeypatch.setattr(wandb, "init", init)
    written(tmp_path, log=("wandb",), rho=0.1)
    written(tmp_path, log=("wandb",), rho=0.1)
    first, second = begun
    assert first.values == second.values
    assert first.values["resume"] == "allow"
    assert first.values["dir"] == tmp_path
    assert first.values["config"]["rho"] == 0.1
    # What it knows isn't sent again.
    assert first.logged == [(4, RECORDS[0]), (8, {"epoch": 2, "step": 8}), (12, NEXT)]
    assert second.logged == [(12, NEXT)]
    assert first.finished
    assert second.finished
    written(tmp_path / "..", log=("wandb",))
    assert begun[-1].values["id"] != first.values["id"]


def test_wandb_without_an_account_says_what_to_do(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")

    def init(**_):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(ValueError, match=r"^--log wandb can't start: No .*=offline ne"):
        train(tmp_path, log=("wandb",))
    assert not (tmp_path / "wandb-id").exists()


def test_wandb_that_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"^--log wandb needs .*: pip install wandb$"):
        train(tmp_path, log=("wandb",))


@pytest.mark.slow
def test_wandb_offline_holds_the_records(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path / "run", log=("wandb",))
    (file,) = (tmp_path / "run/wandb").glob("offline-run-*/*.wandb")
    identity = (tmp_path / "run/wandb-id").read_text()
    assert file.name == f"run-{identity}.wandb"
    content = file.read_bytes()
    for record in log(tmp_path / "run"):
        assert repr(record["accuracy"]).encode() in content
