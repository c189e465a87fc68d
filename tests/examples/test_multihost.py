"""The multi-host example as real processes: alone, in pairs, killed and run again."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.slow

SAVE_EVERY, STEPS = 10, 60
HEARTBEAT = 10  # seconds
SLACK = 20  # seconds, for a busy machine, on top of what the example promises
PATIENCE = 200  # seconds for what takes about 20


@contextlib.contextmanager
def launched(folder, processes):
    """One process of 8 devices, or two of 4: each as a Popen and its log's path."""
    flags = ["--save-every", SAVE_EVERY, "--steps", STEPS, "--checkpoints", folder]
    flags += ["--cpu-devices", 8 // processes]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        flags += ["--coordinator", address, "--processes", processes]
        flags += ["--heartbeat", HEARTBEAT]
    command = [sys.executable, "-m", "examples.multihost", *flags]
    # Without the 8 devices that conftest.py asks for.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    with contextlib.ExitStack() as cleanup:
        started = []
        for i in range(processes):
            identity = ["--process-id", i] if processes > 1 else []
            log = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.log")
            process = subprocess.Popen(
                list(map(str, [*command, *identity])),
                env=environment,
                stdout=cleanup.enter_context(log.open("w")),
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, with the children in it
            )
            cleanup.callback(process.wait)
            cleanup.callback(kill_group, process.pid)
            started.append((process, log))
        yield started


def kill_group(pid):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def completed(folder, processes):
    """What process 0 wrote in a run to the end."""
    with launched(folder, processes) as started:
        for process, log in started:
            assert process.wait(PATIENCE) == 0, log.read_text()
        return started[0][1].read_text()


def results(text):
    """Test loss, accuracy, and the norm of the parameters."""
    found = re.search(r"test loss (\S+), accuracy (\S+), norm of params (\S+)", text)
    assert found, text
    return [float(number) for number in found.groups()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return completed(tmp_path_factory.mktemp("pair") / "checkpoints", processes=2)


def test_two_processes_train_as_one(uninterrupted, tmp_path):
    alone = completed(tmp_path / "checkpoints", processes=1)
    assert "1 x 8 devices, from step 0\n" in alone
    assert "2 x 4 devices, from step 0\n" in uninterrupted
    np.testing.assert_allclose(results(uninterrupted), results(alone), rtol=1e-5)


@pytest.mark.parametrize(
    ("victim", "kill"),
    [
        pytest.param(1, os.killpg, id="a host fails"),
        # The coordinator's training process has to go when its parent goes.
        pytest.param(0, os.kill, id="the coordinator is killed"),
    ],
)
def test_a_death_stops_all_and_a_rerun_continues(uninterrupted, tmp_path, victim, kill):
    folder = tmp_path / "checkpoints"
    with launched(folder, processes=2) as started:
        deadline = time.monotonic() + PATIENCE
        first_log = started[0][1]
        # Reported once the checkpoint before is complete.
        while f"step {2 * SAVE_EVERY}:" not in first_log.read_text():
            assert time.monotonic() < deadline, first_log.read_text()
            time.sleep(0.02)
        kill(started[victim][0].pid, signal.SIGKILL)
        survivor, log = started[1 - victim]
        assert survivor.wait(HEARTBEAT + SLACK) == 1
        message = log.read_text().splitlines()[-1]
    assert message.startswith(f"Process {1 - victim} on ")
    assert "another process died" in message
    assert f"stop within about {HEARTBEAT} seconds" in message
    assert "run the same commands again" in message
    found = re.search(r"continues from step (\d+)", message)
    assert found, message
    step = int(found[1])
    assert SAVE_EVERY <= step < STEPS

    rerun = completed(folder, processes=2)
    assert f"2 x 4 devices, from step {step}\n" in rerun
    np.testing.assert_allclose(results(rerun), results(uninterrupted), rtol=1e-5)


@pytest.mark.parametrize(
    "flags", [["--processes", "2"], ["--save-every", "0"]], ids=lambda flags: flags[0]
)
def test_refuses_what_it_cannot_do(flags):
    command = [sys.executable, "-m", "examples.multihost", *flags]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert flags[0] in done.stderr
