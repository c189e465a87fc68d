"""The report: what each table says of a target, from records as jobs write them."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import reports
from benchmarks.accelerator import outside
from benchmarks.accelerator import records
from benchmarks.accelerator import report


def keep(folder, name, kind, results):
    about = {"device": "gpu (NVIDIA H100 PCIe)", "revision": "0" * 12, "versions": {}}
    record = {"name": name, "kind": kind, "options": {}, "status": "done", **about}
    records.write(records.path(folder, name), record | {"results": results})


def step_row(k, step_s, copies, compile_s):
    return {
        "k": k,
        "member": "lookbehind_sam",
        "samples": [{"gradients_s": 0.1 * (k + 1), "step_s": step_s}],
        "temporary_parameter_copies": copies,
        "planned_bytes": 3e9,
        "compile_s": compile_s,
        "profile": None,
        "outside": [{"kind": "copy", "name": "", "count": 2, "bytes": 5e6}],
    }


def peer_job(precision, ours, theirs):
    about = {"model": "resnet34", "precision": precision, "k": 2}
    samples = [
        {
            "lookbehind_sam": ours,
            "multistep_sam": ours,
            "PyTorch, 2k gradients": theirs,
            "optax.contrib.sam": 2 * ours,
        }
    ]
    return {"torch": "2", "rows": [{**about, "samples": samples}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results of one job of each kind, and their report."""
    folder = tmp_path_factory.mktemp("results")
    keep(folder, "device", "device", {"kind": "NVIDIA H100 PCIe"})
    outcomes = {
        "a.py::one": {"outcome": "passed", "measured": {"distance": 0.004}},
        "a.py::two": {"outcome": "failed", "measured": {}, "wrong": ["no"]},
    }
    keep(folder, "correct-a", "correct", {"tests": outcomes})
    about = {"model": "resnet34", "precision": "bf16", "batch_size": 128}
    rows = [step_row(2, 0.306, 2.0, 10.0), step_row(10, 1.2, 3.5, 12.5)]
    costs = {"gradient_flops": 7.56e12, "gradient_bytes": 2e10}
    keep(folder, "step-a", "step", {**about, **costs, "rows": rows})
    keep(folder, "peers-a", "peers", peer_job("bf16", 0.1, 0.12))
    keep(folder, "peers-b", "peers", peer_job("tf32", 0.2, 0.32))
    samples = [{"trainer_s": 4.0, "step_s": 3.9}]
    trained = {"m": None, "dataset": "50,000 + 10,000", "images": 49_920}
    trained |= {"gradients": 1170, "samples": samples, "projected_s": 1000.0}
    keep(folder, "training-a", "training", {**about, **trained})
    for seed, accuracy in enumerate((0.94, 0.95)):
        cell = {"question": "cifar-30", "row": "SAM", "dataset": "50,000 + 10,000"}
        cell |= {"test_accuracy": accuracy, "seconds": 100.0}
        keep(folder, f"evidence-{seed}", "evidence", cell)
    failed = {"name": "z", "kind": "step", "status": "failed", "reason": "it broke"}
    records.write(records.path(folder, "z"), failed)
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def rendered(folder):
    return (folder / "report.md").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "Its peak in bfloat16 is 756 TFLOP/s, and its memory gives 2.00 TB/s.",
        "| a.py | 1 | 0 | two | 0.004 |",
        "| 2 | 306.00 | 1.020 | yes | 2.00 | yes | 3.00 | 10.0 |",
        "| 10 | 1200.00 | 1.091 | no | 3.50 | no | 3.00 | 12.5 |",
        "| resnet34 | bf16 | 100.00 | 75.60 | 10 % | 0.20 | 10 % | 1.25 | no |",
        "| resnet34, bf16, k = 10 | copy | (XLA's own) | 2 | 5.0 |",
        "| resnet34 | bf16 | 2 | PyTorch, 2k gradients | 120.00 | 1.20 | 1.3 | no |",
        "| resnet34 | tf32 | 2 | PyTorch, 2k gradients | 320.00 | 1.60 | 1.3 | yes |",
        "in tf32, its default | 320.00 | 3.20 | 3 | yes |",
        "| resnet34 | tf32 | 2 | optax.contrib.sam | 400.00 | 2.00 |  |  |",
        "| 50,000 + 10,000 | 12,480 | 292 | 0.975 | yes | 16.7 | no |",
        "| cifar-30 | SAM | 50,000 + 10,000 | 94.5 ± 0.7 | 100 | 2 |",
        "| z | failed | it broke |",
    ],
)
def test_the_table(rendered, line):
    assert line in rendered


def test_it_is_made_of_its_json_alone(rendered, folder, capsys):
    picture = folder / "report.png"
    picture.unlink()
    reports.main([str(folder / "report.json")])
    assert rendered in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_results(tmp_path):
    with pytest.raises(SystemExit, match="--report must be a folder of results"):
        report.write(tmp_path)


def test_what_a_step_does_beside_its_gradient_has_a_name():
    def step(x):
        with jax.named_scope("descend"):
            return x - 0.1 * jax.grad(lambda x: jnp.sum(jnp.tanh(x) ** 3))(x)

    compiled = jax.jit(step).lower(jnp.ones(64)).compile()
    found = outside.find(compiled, at_least=64)
    assert [it["kind"] for it in found] == ["fusion"]
    assert "descend" in found[0]["name"]
    assert found[0]["bytes"] == 4 * 64
    assert outside.find(compiled, at_least=65) == []
