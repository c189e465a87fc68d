"""The list of jobs: its order, its estimates, and what they are made of."""

import itertools
from pathlib import Path
import re

import jax
import jax.numpy as jnp
import optax
import pytest

from benchmarks.accelerator import __main__ as program
from benchmarks.accelerator import limits
from benchmarks.accelerator import plan
from benchmarks.accelerator import records
from benchmarks.evidence.questions import QUESTIONS
from benchmarks.speed import networks
from benchmarks.speed.steps import flops
from examples.images.models import MODELS
from examples.trainer.optimizers import make_base
from examples.trainer.optimizers import make_phases

JOBS = list(plan.jobs())
H100 = limits.DEVICES["NVIDIA H100"]


def test_the_order_is_that_of_their_worth():
    kinds = [kind for kind, _ in itertools.groupby(job.kind for job in JOBS)]
    assert kinds == ["correct", "step", "peers", "training", "evidence"]
    assert len({job.name for job in JOBS}) == len(JOBS)


def test_each_job_fits_into_eight_minutes_or_resumes():
    for job in JOBS:
        assert job.resumes or job.estimate(H100) < 8 * 60, job.name


def test_an_estimate_is_made_of_flops():
    job = plan.Job("a", "step", {}, flops=989e12, precision="bf16", share=0.5)
    assert job.estimate(H100) == pytest.approx(plan.START_S + 2)
    slower = job._replace(precision="fp32")
    assert slower.estimate(H100) == pytest.approx(plan.START_S + 989 / 67 / 0.5)


def test_the_smoke_has_every_kind():
    assert {job.kind for job in plan.smoke()} == {job.kind for job in JOBS}


def test_every_test_for_accelerators_is_in_a_job():
    files = {Path(file) for job in JOBS for file in job.options.get("files", ())}
    assert files == set(Path("tests/accelerator").glob("test_*.py"))


def gradient_flops(name):
    """Of an example, from shapes alone."""
    if name in networks.DECODERS:
        model = networks.DECODERS[name]
        batch = jax.ShapeDtypeStruct((1, model.length), jnp.int32)
        params = jax.eval_shape(model.init, jax.random.key(0), batch)
        loss = networks.next_token_loss(model)
        return flops(jax.grad(loss), zeros(params), zeros(batch))
    model = MODELS[name](classes=10)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = zeros(jax.eval_shape(model.init, jax.random.key(0), images))

    def loss(params, images):
        out, _ = model.apply(
            {**variables, "params": params}, images, mutable=["batch_stats"]
        )
        labels = jnp.zeros(1, jnp.int32)
        return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean()

    return flops(jax.grad(loss), variables["params"], zeros(images))


def zeros(tree):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "wrn-16-4" else pytest.mark.slow)
        for name in plan.NETWORKS
    ],
)
def test_flops_of_a_gradient_are_those_that_xla_counts(name):
    counted = gradient_flops(name) / 1e9
    assert plan.NETWORKS[name].gflops == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("epochs", [30, 200])
def test_rows_of_the_evidence_take_the_gradients_that_are_planned(epochs):
    question = QUESTIONS[f"cifar-{epochs}"]
    assert {row.label for row in question.rows} == set(plan.ROWS)
    for row in question.rows:
        config = question.config.__class__(**{**vars(question.config), **row.options})
        phases = make_phases(config, make_base(config, 0.1), 390)
        ends = [0, *(phase.until for phase in phases)]
        lengths = [after - before for before, after in itertools.pairwise(ends)]
        taken = sum(n * p.gradients for n, p in zip(lengths, phases, strict=True))
        gradients, times = plan.ROWS[row.label]
        assert config.epochs == times * epochs
        assert taken / ends[-1] == pytest.approx(gradients)


def test_the_program_lists_the_plan(tmp_path, capsys):
    done = {"name": JOBS[0].name, "status": "done"}
    records.write(records.path(tmp_path, JOBS[0].name), done)
    program.main(["--plan", "--output", str(tmp_path)])
    head, first, second, *_, last = capsys.readouterr().out.splitlines()
    assert "estimates are for an NVIDIA H100" in head
    assert re.fullmatch(rf"{JOBS[0].name} +\d+ s +\d+ s  done", first)
    assert re.fullmatch(rf"{JOBS[1].name} +\d+ s +\d+ s  left", second)
    left = sum(job.estimate(H100) for job in JOBS[1:]) / 60
    assert last.startswith(f"{left:.0f} minutes are left")


@pytest.mark.parametrize(
    "arguments",
    [[], ["--output", "a", "--minutes", "0"], ["--report", "a", "--output", "b"]],
)
def test_wrong_flags_are_refused(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main(arguments)
    assert "--minutes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB"),
        ("Tesla V100-SXM2-16GB", "Tesla V100"),
        ("TPU v5 lite", "TPU v5 lite"),
        ("TPU v5", "TPU v5"),
        ("NVIDIA L40S", None),
        ("cpu", None),
    ],
)
def test_limits_by_the_name_that_jax_has(kind, name):
    assert limits.find(kind) == (limits.DEVICES[name] if name else None)
