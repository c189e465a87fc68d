"""Lifelong learning: the stream, the memory, the meta-gradient, what is measured."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from examples.images import data
from examples.images.models import MODELS
from examples.lifelong import learning
from examples.lifelong import replay
from examples.lifelong import tasks
from examples.lifelong.config import Lifelong
from examples.lifelong.learning import Learner
from examples.lifelong.learning import Network
from examples.lifelong.maml import make_meta_loss
from examples.lifelong.methods import METHODS
from examples.lifelong.replay import Batch


@pytest.fixture(autouse=True)
def standard_promotion():
    """Flax's layers aren't written for strictness."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


class Tiny(nn.Module):
    """Compiles in no time."""

    classes: int = 10

    @nn.compact
    def __call__(self, images):
        x = images.reshape(len(images), -1)
        return nn.Dense(self.classes, name="head")(nn.tanh(nn.Dense(16)(x)))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    return Lifelong(
        model="tiny",
        images_per_task=60,
        inner_steps=2,
        seeds=2,
        learning_rate=0.1,
        meta_learning_rate=0.2,
    )


# What is measured.


def test_metrics_by_hand():
    accuracies = np.array([[0.9, 0.5, 0.4], [0.6, 0.8, 0.6], [0.7, 0.4, 1.0]])
    # (0.7 + 0.4 + 1.0) / 3, and (0.9 - 0.7 + 0.8 - 0.4) / 2.
    assert tasks.average_accuracy(accuracies) == pytest.approx(0.7)
    assert tasks.forgetting(accuracies) == pytest.approx(0.3)
    # Task 2 was best before it was learned, and is better at the end than ever.
    accuracies[:, 1] = [0.7, 0.6, 0.9]
    assert tasks.forgetting(accuracies) == pytest.approx((0.2 - 0.2) / 2)
    both = np.stack([accuracies, np.eye(3)])
    np.testing.assert_allclose(tasks.average_accuracy(both), [2.6 / 3, 1 / 3])
    np.testing.assert_allclose(tasks.forgetting(both), [0.0, 1.0], atol=1e-12)


# The stream.


@pytest.mark.parametrize("classes_per_task", [2, 5])
def test_each_class_is_in_one_task_and_its_images_with_it(digits, classes_per_task):
    stream = tasks.split(digits, classes_per_task, seed=3)
    assert sorted(stream.classes.flat) == list(range(10))
    for part, examples in ((stream.train, digits.train), (stream.test, digits.test)):
        assert part.images is examples.images
        np.testing.assert_array_equal(
            stream.classes[part.tasks, part.labels], examples.labels
        )
    again, other = (tasks.split(digits, classes_per_task, seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.classes, stream.classes)
    assert (other.classes != stream.classes).any()


@pytest.mark.parametrize(
    ("classes_per_task", "said"),
    [
        (3, "2, 5; got 3, which leaves 1 over"),
        (4, "2, 5; got 4, which leaves 2 over"),
        (10, "2, 5; got 10$"),
        (1, "2, 5; got 1$"),
        (0, "2, 5; got 0$"),
        (-2, "2, 5; got -2$"),
        (20, "2, 5; got 20, which leaves 10 over"),
    ],
)
def test_a_split_that_leaves_classes_over_is_refused(digits, classes_per_task, said):
    with pytest.raises(
        ValueError,
        match="classes_per_task must split the 10 classes of digits .*" + said,
    ):
        tasks.split(digits, classes_per_task, seed=0)


def test_tiny_imagenet_becomes_a_folder_as_the_page_says(tmp_path, monkeypatch):
    """An archive of the same layout, with fewer images, one of them gray."""
    archive = tmp_path / "tiny-imagenet-200"

    def save(path, level, mode="RGB"):
        path = archive / path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64), level, "u1")).convert(mode).save(path)

    save("train/n02/images/n02_0.JPEG", 50)
    save("train/n01/images/n01_0.JPEG", 200)
    save("train/n01/images/n01_1.JPEG", 220, "L")
    (archive / "train/n01/n01_boxes.txt").write_text("n01_0.JPEG\t0\t0\t62\t62\n")
    save("test/images/test_0.JPEG", 9)
    save("val/images/val_0.JPEG", 100)
    save("val/images/val_1.JPEG", 120)
    (archive / "val/val_annotations.txt").write_text(
        "val_0.JPEG\tn02\t0\t32\t44\t62\nval_1.JPEG\tn01\t0\t32\t44\t62\n"
    )
    page = pathlib.Path(__file__).parents[2] / "docs/lifelong.md"
    (commands,) = re.findall(r"```bash\n(curl .*?)```", page.read_text(), re.DOTALL)
    unpacked = commands[commands.index("rm -r") :]
    subprocess.run(["bash", "-e", "-c", unpacked], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    dataset = data.load("folder:tiny-imagenet-200")
    assert dataset.classes == 2
    for examples, expected in (
        (dataset.train, [(200, 0), (220, 0), (50, 1)]),
        (dataset.test, [(120, 0), (100, 1)]),
    ):
        assert examples.images.shape[1:] == (64, 64, 3)
        levels = examples.images[:, 0, 0, 0].tolist()
        assert [*zip(levels, examples.labels, strict=True)] == expected


# The memory.


def numbered(numbers):
    """A batch of one-pixel images whose labels are these."""
    labels = jnp.asarray(numbers, jnp.int32)
    images = jnp.uint8(labels % 256)[:, None, None, None]
    return Batch(images, labels, labels % 7, jnp.ones(len(labels)))


def memory_of(capacity):
    like = tasks.Labelled(*map(np.asarray, numbered([0])[:3]))
    return replay.empty(capacity, like)


def test_a_memory_that_is_not_full_holds_all_in_order():
    memory = memory_of(10)
    for start in (0, 4):
        memory = replay.remember(
            memory, numbered(range(start, start + 4)), jax.random.key(start)
        )
    assert memory.seen == 8
    expected = numbered(range(8))
    chex.assert_trees_all_equal(
        (memory.images[:8], memory.labels[:8], memory.tasks[:8]), expected[:3]
    )


def test_recalled_images_differ_and_those_missing_weigh_nothing():
    memory = memory_of(10)
    assert not replay.recall(memory, 4, jax.random.key(0)).weights.any()
    memory = replay.remember(memory, numbered([5, 6, 7]), jax.random.key(0))
    recalled = replay.recall(memory, 4, jax.random.key(1))
    assert list(recalled.weights) == [1, 1, 1, 0]
    assert sorted(recalled.labels[:3].tolist()) == [5, 6, 7]
    chex.assert_trees_all_equal(recalled[:3], numbered(recalled.labels)[:3])


def test_recalled_images_are_drawn_uniformly():
    memory = replay.remember(memory_of(9), numbered(range(6)), jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4000)
    recalled = jax.vmap(lambda key: replay.recall(memory, 2, key).labels)(keys)
    assert_uniform(np.bincount(recalled.ravel(), minlength=6), 4000, 2 / 6)


def assert_uniform(counts, draws, probability):
    """Each within five standard deviations, one in two million beyond them."""
    deviation = np.sqrt(draws * probability * (1 - probability))
    np.testing.assert_allclose(counts, draws * probability, atol=5 * deviation)


@pytest.mark.parametrize(("capacity", "batches", "size"), [(5, 4, 5), (8, 3, 7)])
def test_every_image_seen_is_kept_with_the_same_probability(capacity, batches, size):
    """In batches, too, where several images may be sent to the same place."""
    draws = 4000

    def kept(key):
        memory = memory_of(capacity)
        for i, key_of_batch in enumerate(jax.random.split(key, batches)):
            batch = numbered(range(i * size, (i + 1) * size))
            memory = replay.remember(memory, batch, key_of_batch)
        return memory.labels, memory.tasks

    labels, of_tasks = jax.vmap(kept)(jax.random.split(jax.random.key(0), draws))
    np.testing.assert_array_equal(
        of_tasks, labels % 7
    )  # what belongs together stays so
    assert all(len(set(row)) == capacity for row in labels.tolist())
    seen = batches * size
    counts = np.bincount(np.ravel(labels), minlength=seen)
    assert_uniform(counts, draws, capacity / seen)


# Losses.


def test_other_tasks_heads_get_no_gradient(digits, tiny):
    stream = tasks.split(digits, 2, seed=0)
    learner = Learner(Network(tiny, digits), METHODS["sgd+replay"])
    params = learner.network.init(0)
    of_task = {t: np.flatnonzero(stream.train.tasks == t)[:4] for t in (1, 3)}
    current, recalled = (learning.take(stream.train, i) for i in of_task.values())
    head = jax.grad(learner.loss)(params, current, recalled)["head"]["kernel"]
    by_task = jnp.abs(head).reshape(16, 5, 2).sum((0, 2))
    assert list(by_task > 0) == [False, True, False, True, False]


def test_the_loss_is_that_of_each_images_own_head(digits, tiny):
    stream = tasks.split(digits, 2, seed=0)
    learner = Learner(Network(tiny, digits), METHODS["sgd+replay"])
    params = learner.network.init(0)
    current, recalled = (learning.take(stream.train, np.arange(5) + n) for n in (0, 5))
    recalled = recalled._replace(weights=jnp.array([1.0, 1, 0, 1, 0]))
    images = (digits.train.images[:10] / 255 - digits.mean) / digits.std
    logits = np.asarray(Tiny().apply({"params": params}, jnp.float32(images)))
    losses = []
    for i in (0, 1, 2, 3, 4, 5, 6, 8):
        first = 2 * stream.train.tasks[i]
        own = logits[i, first : first + 2]
        losses.append(np.log(np.exp(own).sum()) - own[stream.train.labels[i]])
    loss = learner.loss(params, current, recalled)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


def quadratic(params, batch):
    """Not quite: its third derivatives aren't zero."""
    x = batch.images.reshape(len(batch.labels), -1) * params["scale"]
    error = jnp.tanh(x @ params["kernel"]) - batch.labels
    return jnp.sum(batch.weights * error**2) / jnp.sum(batch.weights)


def meta_problem(dtype):
    rng = np.random.default_rng(0)

    def batch(n, weights):
        images = rng.normal(size=(n, 2, 2, 1))
        return Batch(
            *map(jnp.asarray, (images, rng.normal(size=n), np.zeros(n), weights))
        )

    params = {"kernel": rng.normal(size=4), "scale": np.array(0.7)}
    current, recalled = batch(6, np.ones(6)), batch(3, np.array([1.0, 1.0, 0.0]))
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, current, recalled))


@pytest.mark.parametrize("clip", [10.0, 0.3])
def test_the_meta_gradient_is_a_finite_difference(x64, clip):
    params, current, recalled = meta_problem(jnp.float64)
    meta_loss = make_meta_loss(quadratic, learning_rate=0.2, steps=3, clip=clip)
    rng, size = np.random.default_rng(1), 1e-5
    way = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)

    def at(step):
        moved = jax.tree.map(lambda p, w: p + step * w, params, way)
        return meta_loss(moved, current, recalled)

    difference = (at(size) - at(-size)) / (2 * size)
    grads = jax.grad(meta_loss)(params, current, recalled)
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, w: jnp.sum(g * w), grads, way)))
    np.testing.assert_allclose(along, difference, rtol=1e-8)
    # The first-order approximation would not pass.
    fast, rest = (
        dict(params),
        [jax.tree.map(lambda x, i=i: x[i::3], current) for i in range(3)],
    )
    for part in rest:
        g = jax.grad(quadratic)(fast, part)
        fast = jax.tree.map(lambda f, g: f - 0.2 * jnp.clip(g, -clip, clip), fast, g)
    np.testing.assert_allclose(
        meta_loss(params, current, recalled),
        quadratic(fast, replay.join(current, recalled)),
        rtol=1e-12,
    )
    first = jax.grad(quadratic)(fast, replay.join(current, recalled))
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, w: jnp.sum(g * w), first, way)))
    assert abs(along / difference - 1) > 1e-2


# The program.


@pytest.mark.slow
def test_every_method_learns(digits, tiny):
    stream = tasks.split(digits, 2, seed=0)
    network = Network(dataclasses.replace(tiny, epochs=2), digits)
    steps = 2 * 5 * 6
    gradients = [1, 2, 3, 3] * 2 + [3, 3, 9]
    for (name, method), each in zip(METHODS.items(), gradients, strict=True):
        learner = Learner(network, method)
        accuracies, spent, _ = learning.learn(learner, stream, seed=0)
        assert accuracies.shape == (5, 5)
        assert spent == each * steps
        # Well above chance, which is 0.5 ± 0.02.
        assert np.diag(accuracies).mean() > 0.6, name


def test_lookbehind_with_k_and_alpha_of_1_is_sam(digits, tiny):
    stream = tasks.split(digits, 5, seed=0)
    config = dataclasses.replace(tiny, classes_per_task=5, k=1, alpha=1.0, rho=0.2)
    found = [
        learning.learn(Learner(Network(config, digits), METHODS[name]), stream, 0)
        for name in ("sam+replay", "lookbehind_sam+replay")
    ]
    chex.assert_trees_all_close(found[0][2], found[1][2], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found[0][0], found[1][0])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"methods": ("adam",)}, "methods must be of sgd, .*; got adam"),
        ({"model": "mlp"}, "model must be one of .*; got mlp"),
        ({"seeds": 1}, "seeds must be at least 2, .*; got 1"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"memory": 5}, "memory must hold at least the 10 images .*; got 5"),
        ({"inner_steps": 3}, "inner_steps must divide the batch_size of 10, .*; got 3"),
        ({"images_per_task": 0}, "images_per_task must be at least 1; got 0"),
        ({"images_per_task": 7}, "batch_size must be at most the 7 training images"),
        ({"classes_per_task": 4}, "got 4, which leaves 2 over"),
        ({"model": "resnet18"}, "model must have no BatchNorm, .*; got resnet18"),
    ],
)
def test_what_cannot_be_run_is_refused(told, said, tiny):
    with pytest.raises(ValueError, match=said):
        learning.run(dataclasses.replace(tiny, **told))


def test_a_stream_that_diverges_is_refused(digits, tiny):
    config = dataclasses.replace(tiny, learning_rate=float("inf"))
    with pytest.raises(FloatingPointError, match="of SGD was nan at the end of task 1"):
        learning.learn(
            Learner(Network(config, digits), METHODS["sgd"]),
            tasks.split(digits, 2, 0),
            0,
        )


@pytest.mark.slow
def test_the_smoke_benchmark(tmp_path):
    command = [sys.executable, "-m", "benchmarks.paper.lifelong", "--size", "smoke"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "new")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "new/lifelong_smoke_digits_1.json").read_text())
    assert written["device"].startswith("cpu")
    found = written["methods"]
    assert [run["gradients"] for run in found.values()] == [20, 60, 60]
    assert {np.shape(run["accuracies"]) for run in found.values()} == {(2, 5, 5)}
    assert (tmp_path / "new/lifelong_smoke_digits_1.md").read_text() in done.stdout
    assert "| C-MAML, Lookahead | yes |" in done.stdout
    picture = tmp_path / "new/lifelong_smoke_digits_1.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_program_says_what_is_wrong():
    command = [sys.executable, "-m", "examples.lifelong", "--classes-per-task", "3"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: classes_per_task must split the 10 classes")
    assert "which leaves 1 over" in done.stderr
