"""The trainer of image classifiers: what it refuses, trains, measures and writes."""

from dataclasses import replace
import functools
import json
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from examples.images import data
from examples.images.__main__ import report
from examples.images.config import Config
from examples.images.models import MODELS
from examples.images.models import VisionTransformer
from examples.images.parts import hold_out
from examples.images.training import Training
from examples.trainer import plots
from examples.trainer import runs
from tests.examples.images.test_models import make_tensors
from tests.library.members import each

SMALL = {"epochs": 2, "batch_size": 128, "weight_decay": 1e-4}


pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


def train(config, dataset, folder):
    return runs.run(config, Training(config, dataset), folder)


# What it refuses.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "resnet"}, r"^--model must be one of"),
        ({"batch_size": 10**6}, r"^--batch-size is too large"),
        ({"mesh": ("data=3",)}, r"^--mesh must use all 8 devices.* got 'data=3'"),
        ({"mesh": ("data",)}, r"^--mesh must look like .* got 'data'"),
        ({"mesh": ("data=8",), "batch_size": 12}, r"^--batch-size must be a multiple"),
        ({"pretrained": __file__}, r"^--pretrained is for ViTs; got --model convnet"),
    ],
)
def test_what_it_refuses(values, message, digits):
    with pytest.raises(ValueError, match=message):
        Training(replace(Config(), **values), digits)


def test_images_that_are_no_squares_need_a_size(digits):
    part = data.Examples(digits.train.images[:, :4], digits.train.labels)
    wide = replace(digits, train=part)
    with pytest.raises(ValueError, match=r"^digits has images of 4×8 pixels; say to"):
        Training(Config(), wide)
    assert Training(replace(Config(), image_size=8), wide).shape == (8, 8, 1)


def test_a_run_on_other_labels_is_refused(digits, tmp_path):
    config = replace(Config(), **SMALL | {"epochs": 1})
    train(config, digits, tmp_path)
    labels = digits.train.labels[::-1]
    other = replace(digits, train=data.Examples(digits.train.images, labels))
    with pytest.raises(ValueError, match=r"a run on other data: digits has changed"):
        train(config, other, tmp_path)


# What it does.


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {"optimizer": "base", "base": "adamw", "learning_rate": 0.005},
        {
            "optimizer": "multistep_asam",
            "average": True,
            "base": "adam",
            "learning_rate": 0.005,
        },
        {"alpha": "adaptive-per-tensor", "micro_batches": 2},
        {"switch_minibatches": True, "reuse_gradients": False},
        {"m": 32, "lookahead": 3, "label_smoothing": 0.1},
        {"model": "vit-micro", "precision": "bf16", "nesterov": True},
        {"phases": ("base until 0.5", "sam until 1")},
    ],
)
def test_every_way_learns(values, digits, tmp_path):
    config = replace(Config(**SMALL), **values)
    summary = train(config, digits, tmp_path)
    first, last = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert last["loss"] < first["loss"]
    assert summary["final_test_accuracy"] == last["test_accuracy"] > 0.2


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param(("data=8",), marks=pytest.mark.slow),
        pytest.param(("fsdp=8",), marks=pytest.mark.slow),
        pytest.param(("data=2", "fsdp=4"), marks=pytest.mark.thorough),
    ],
)
def test_many_devices_train_as_one_does(mesh, digits, tmp_path):
    config = Config(**SMALL | {"epochs": 1}, alpha="adaptive")
    train(config, digits, tmp_path / "one")
    many = replace(config, mesh=mesh)
    training = Training(many, digits)
    runs.run(many, training, tmp_path / "many")
    one, many = (
        json.loads((tmp_path / name / "log.jsonl").read_text())
        for name in ("one", "many")
    )
    assert many == pytest.approx(one, rel=1e-4)
    kernel = training.shapes.params["Dense_0"]["kernel"]
    parts = kernel.shape[0] // kernel.sharding.shard_shape(kernel.shape)[0]
    assert parts == training.layout.mesh.shape["fsdp"]


@pytest.mark.slow
def test_one_call_for_many_steps_takes_them_one_by_one(digits):
    config = Config(**SMALL, phases=("base until 0.5", "lookbehind_sam until 1"))
    states = []
    for scans in (False, True):
        training = Training(config, digits)
        training.scans = scans
        assert training.steps_per_epoch == 10
        state = training.advance(training.init(), 6, 10)
        states.append(training.advance(state, 10, 12))  # another phase
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_on_an_accelerator_an_epoch_is_one_program(digits):
    training = Training(Config(**SMALL), digits)
    batches = jax.ShapeDtypeStruct((10, 128), np.int32)
    scan: Any = training.scan(training.phases[0])
    traced = scan.trace(training.shapes, training.feed.arrays, batches)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("stablehlo.while") == 2  # over the steps, and over the climb
    assert "callback" not in program


@pytest.mark.thorough
def test_a_pretrained_vit_is_fine_tuned_at_another_size_and_head(
    digits, tmp_path, monkeypatch
):
    vit = functools.partial(VisionTransformer, patch=2, width=8, depth=2, heads=2)
    monkeypatch.setitem(MODELS, "vit", vit)
    save_file(make_tensors(), tmp_path / "model.safetensors")
    config = Config(
        **SMALL,
        model="vit",
        pretrained=tmp_path / "model.safetensors",
        image_size=12,
        optimizer="base",
    )
    training = Training(config, digits)
    params = training.init().params
    assert params["positions"].shape[-2] == 1 + 6 * 6
    np.testing.assert_array_equal(params["head"]["kernel"], np.zeros((8, 10)))
    np.testing.assert_array_equal(
        params["norm"]["scale"], make_tensors()["vit.layernorm.weight"]
    )
    black = training.prepare(jax.numpy.zeros((1, 8, 8, 1), np.uint8))
    np.testing.assert_array_equal(black, np.full((1, 12, 12, 3), -1.0))
    runs.run(config, training, tmp_path / "run")
    first, last = map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
    assert last["loss"] < first["loss"]


@pytest.mark.thorough
def test_wrong_labels_are_learned_by_heart(tmp_path):
    """A tenth of 60 images have wrong labels, which a network without limits learns."""
    whole = data.load("digits")
    dataset = replace(whole, train=data.Examples(*(x[:60] for x in whole.train)))
    config = Config(
        epochs=40,
        batch_size=20,
        learning_rate=0.1,
        weight_decay=0.0,
        optimizer="base",
        label_noise=0.1,
        augment="no",
    )
    training = Training(config, dataset)
    state = training.advance(training.init(), 0, 3)
    before = training.evaluate(state)
    names = {"test_loss", "test_accuracy", "test_ece", "flipped_accuracy"}
    assert {*before} == names
    for epoch in range(1, 40):
        state = training.advance(state, 3 * epoch, 3 * epoch + 3)
    after = training.evaluate(state)
    assert before["flipped_accuracy"] < 0.5
    assert after["flipped_accuracy"] == 1.0
    assert training.conclude(state) == {}


def test_a_clean_validation_keeps_its_labels(digits):
    noisy, clean = (
        Training(Config(label_noise=0.4, validation=0.1, **options), digits).parts
        for options in ({}, {"clean_validation": True})
    )
    held_out = hold_out(digits.train.labels, 0.1)
    assert noisy.valid is not None
    assert clean.valid is not None
    np.testing.assert_array_equal(clean.valid.labels, digits.train.labels[held_out])
    assert (noisy.valid.labels != clean.valid.labels).any()
    np.testing.assert_array_equal(clean.train.labels, noisy.train.labels)


def test_what_is_evaluated_is_what_the_network_says(digits):
    config = Config(label_noise=0.4, validation=0.1, optimizer="base")
    training = Training(config, digits)
    state = training.init()
    parts = training.parts
    apply = jax.jit(functools.partial(training.model.apply, train=False))

    def logits(examples):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        images = training.prepare(jax.numpy.asarray(examples.images))
        return np.asarray(apply(variables, images))

    def accuracy(examples):
        return np.mean(logits(examples).argmax(-1) == examples.labels)

    def calibration_error(examples):
        chances = np.exp(logits(examples))
        chances /= chances.sum(-1, keepdims=True)
        confidence, right = chances.max(-1), chances.argmax(-1) == examples.labels
        error = 0.0
        for low in np.arange(15) / 15:
            there = (low < confidence) & (confidence <= low + 1 / 15)
            if there.any():
                gap = right[there].mean() - confidence[there].mean()
                error += there.mean() * abs(gap)
        return error

    evaluated = training.evaluate(state)
    names = {"valid_loss", "valid_accuracy", "valid_ece", "flipped_accuracy"}
    assert {*evaluated} == names
    assert evaluated["valid_accuracy"] == pytest.approx(accuracy(parts.valid))
    assert evaluated["flipped_accuracy"] == pytest.approx(accuracy(parts.flipped))
    concluded = training.conclude(state)
    assert {*concluded} == {"test_loss", "test_accuracy", "test_ece"}
    assert concluded["test_accuracy"] == pytest.approx(accuracy(digits.test))
    error = calibration_error(digits.test)
    assert concluded["test_ece"] == pytest.approx(error, rel=1e-4)
    # It trains on the rest, with the labels that it was given.
    assert training.feed.train == 1297 - 130
    np.testing.assert_array_equal(training.feed.arrays[1], parts.train.labels)


def test_the_test_set_waits_for_the_end(digits, tmp_path, monkeypatch):
    config = Config(**SMALL, optimizer="base", validation=0.2)
    measured = []
    measure = Training.measure

    def record(self, state, examples, name):
        measured.append((int(state.step), name))
        return measure(self, state, examples, name)

    monkeypatch.setattr(Training, "measure", record)
    summary = train(config, digits, tmp_path)
    assert measured == [(8, "valid"), (16, "valid"), (16, "test")]
    assert 0 < summary["test_accuracy"] <= 1
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert summary["final_valid_accuracy"] == last["valid_accuracy"]
    assert not {"final_test_accuracy", "best_test_accuracy"} & {*summary}
    assert not [name for name in last if name.startswith("test")]


@pytest.mark.parametrize(
    ("values", "curves"),
    each(
        [
            ({}, ["training", "test"]),
            ({"validation": 0.2}, ["training", "validation"]),
            ({"label_noise": 0.2}, ["training", "test", "wrong labels"]),
        ],
        [({"label_noise": 0.2}, ["training", "test", "wrong labels"])],
    ),
)
def test_plots_follow_the_records(digits, tmp_path, monkeypatch, values, curves):
    drawn = []
    monkeypatch.setattr(
        plots.Figure, "savefig", lambda self, *_, **__: drawn.append(self)
    )
    training = Training(Config(**SMALL, optimizer="base", **values), digits)
    state = training.init()
    names = dict.fromkeys(("learning_rate", "loss", "accuracy", "alpha"), 0.5)
    records = [{"epoch": 1, **names, **training.evaluate(state)}]
    plots.plot_runs([records], "title", tmp_path / "plots.png")
    loss, error, *_ = drawn[0].axes
    labels = [line.get_label() for line in error.get_lines()]
    assert labels == curves
    assert [line.get_label() for line in loss.get_lines()] == curves[:2]


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_report_in_words(seeds, capsys, monkeypatch):
    monkeypatch.setattr(plots, "plot_runs", lambda *_: None)
    summary = {
        "parameters": 7,
        "gradient_evaluations": 8,
        "wall_seconds": 9,
        "device": "cpu",
        "final_test_accuracy": 0.5,
        "best_test_accuracy": 0.75,
        "final_valid_accuracy": 0.25,
        "best_valid_accuracy": 0.5,
        "test_accuracy": 0.125,
    }
    other = summary | {"final_test_accuracy": 0.3, "test_accuracy": 0.325}
    summaries = [summary, other][:seeds]
    report(Config(seeds=seeds), summaries, [])
    report(Config(seeds=seeds, validation=0.1), summaries, [])
    said = capsys.readouterr().out
    expected = {
        1: (
            "\ntest accuracy 50.00 %, at best 75.00 %\n",
            "\nvalidation accuracy 25.00 %, at best 50.00 %, test accuracy 12.50 %\n",
        ),
        2: (
            "\ntest accuracy 40.00 ± 14.14 %, at best 75.00 ± 0.00 %\n(mean ± ",
            ", test accuracy 22.50 ± 14.14 %\n(mean ± standard deviation over 2 seeds)",
        ),
    }
    for words in expected[seeds]:
        assert words in said


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_numbers(digits, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(Config(**SMALL | {"epochs": 1}, seed=seed), digits, tmp_path / name)
    a, b, c = ((tmp_path / name / "log.jsonl").read_text() for name in "abc")
    assert a == b != c


@pytest.mark.thorough
def test_a_diverged_network_is_neither_saved_nor_a_success(digits, tmp_path):
    config = Config(**SMALL, learning_rate=1e30, save_every=1)
    with pytest.raises(runs.Diverged, match=r"^(the loss|a param).* by step .* Try a"):
        train(config, digits, tmp_path)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))
    assert not (tmp_path / "summary.json").exists()
