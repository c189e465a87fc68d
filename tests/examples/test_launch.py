"""The launch files: their shapes agree with the flags that they pass to the trainer."""

import os
from pathlib import Path
import re
import shlex
import subprocess

import pytest
import yaml

from examples.images.config import Config
from examples.images.config import RECIPES
from examples.trainer import command
from examples.trainer.config import parse

LAUNCH = Path(__file__).parents[2] / "launch"
SLURM = LAUNCH / "slurm.sh"


def devices_of(arguments):
    """How many there must be, of a command line that the trainer accepts."""
    config = parse(Config, RECIPES, "examples.images", arguments)
    assert config.distributed
    (axis,) = config.mesh
    devices = int(axis.partition("=")[2])
    assert config.batch_size % devices == 0
    return devices


def test_slurm_passes_a_mesh_of_all_its_gpus():
    script = SLURM.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script, re.MULTILINE))
    # JAX gives each process of Slurm one device.
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    (command,) = re.findall(r"-m examples\.images(.*?) \|\|", script, re.DOTALL)
    arguments = shlex.split(command.replace("\\\n", " "))
    processes = int(options["nodes"]) * int(options["ntasks-per-node"])
    assert devices_of(arguments) == processes


@pytest.mark.parametrize(
    ("status", "restarts", "requeued", "returned"),
    [
        (0, "0", False, 0),
        (1, "0", True, 0),
        (143, "19", True, 0),
        (1, "20", False, 1),
        (2, "0", False, 2),
    ],
    ids=["done", "stopped", "killed", "too often", "refused"],
)
def test_slurm_queues_again_what_stopped(
    status, restarts, requeued, returned, tmp_path
):
    for name, body in {"srun": f"exit {status}", "scontrol": 'echo "$@"'}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["bash", SLURM],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": restarts,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == returned
    assert done.stdout == ("requeue 7\n" if requeued else "")


def test_jobset_passes_a_mesh_of_all_its_gpus():
    documents = list(yaml.safe_load_all((LAUNCH / "jobset.yaml").read_text()))
    jobset, account, role, binding = documents
    assert [d["kind"] for d in documents] == [
        "JobSet",
        "ServiceAccount",
        "Role",
        "RoleBinding",
    ]
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "examples.images"]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert devices_of(container["args"]) == job["parallelism"] * gpus
    # JAX may ask for the other pods.
    names = {pod["serviceAccountName"], account["metadata"]["name"]}
    assert names == {binding["subjects"][0]["name"]}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    # The run lies in the volume that all pods share.
    (mount,) = container["volumeMounts"]
    assert mount["name"] == pod["volumes"][0]["name"]
    config = parse(Config, RECIPES, "examples.images", container["args"])
    assert str(config.output).startswith(mount["mountPath"])


def test_jobset_starts_no_refused_command_again():
    jobset = next(yaml.safe_load_all((LAUNCH / "jobset.yaml").read_text()))
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    (of_set,) = policy["rules"]
    assert of_set["action"] == "FailJobSet"
    assert of_set["onJobFailureReasons"] == ["PodFailurePolicy"]
    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # or Kubernetes takes no podFailurePolicy
    (of_pod,) = job["podFailurePolicy"]["rules"]
    (container,) = pod["containers"]
    assert of_pod == {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": container["name"],
            "operator": "In",
            "values": [command.REFUSED],
        },
    }
