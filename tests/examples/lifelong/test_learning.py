"""A network learns task after task, with every method."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.images import data
from examples.lifelong import learning
from examples.lifelong import tasks
from examples.lifelong.learning import Learner
from examples.lifelong.learning import Network
from examples.lifelong.methods import METHODS
from tests.examples.lifelong.conftest import Tiny


def test_other_tasks_heads_get_no_gradient(digits, tiny):
    stream = tasks.split(digits, 2, seed=0)
    learner = Learner(Network(tiny, digits), METHODS["sgd+replay"])
    params = learner.network.init(0)
    of_task = {t: np.flatnonzero(stream.train.tasks == t)[:4] for t in (1, 3)}
    current, recalled = (learning.take(stream.train, i) for i in of_task.values())
    grads = jax.jit(jax.grad(learner.loss))(params, current, recalled)
    head = grads["head"]["kernel"]
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
    loss = jax.jit(learner.loss)(params, current, recalled)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)


@pytest.mark.thorough
def test_every_method_learns(digits, tiny):
    stream = tasks.split(digits, 2, seed=0)
    network = Network(dataclasses.replace(tiny, epochs=3), digits)
    steps = 3 * 5 * 6
    gradients = [1, 2, 3, 3] * 2 + [3, 3, 9]
    for (name, method), each in zip(METHODS.items(), gradients, strict=True):
        learner = Learner(network, method)
        accuracies, spent, _ = learning.learn(learner, stream, seed=0)
        assert accuracies.shape == (5, 5)
        assert spent == each * steps
        # Well above chance, which is 0.5 ± 0.02.
        assert np.diag(accuracies).mean() > 0.6, name


def test_batches_by_hand(digits, tiny):
    of_task = digits.train.labels == 3
    config = dataclasses.replace(tiny, epochs=2, glances=3, images_per_task=20)
    rng = np.random.default_rng(0)
    is_new, chosen = zip(*learning.batches(config, of_task, rng), strict=True)
    assert is_new == (True, False, False) * 2 + (False,) * 6
    by_glance = np.array(chosen).reshape(2, 2, 3, 10)  # epochs, batches
    np.testing.assert_array_equal(by_glance, by_glance[:, :, :1].repeat(3, axis=2))
    first, second = (np.sort(it[:, 0].ravel()) for it in by_glance)
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) == 20
    assert of_task[first].all()


def test_glances_fill_the_memory_once_and_draw_anew(digits, tiny, monkeypatch):
    remembered, fractions, keys = [], [], []
    monkeypatch.setattr(
        learning,
        "remember",
        lambda memory, train, indices, key: remembered.append(indices) or memory,
    )
    stream = tasks.split(digits, 5, seed=0)
    for glances in (1, 2):
        config = dataclasses.replace(tiny, classes_per_task=5, glances=glances)
        learner = Learner(Network(config, digits), METHODS["sgd+replay"])
        advance = learner.advance

        def spied(*args, advance=advance):
            keys.append(tuple(map(int, jax.random.key_data(args[-1]))))
            return advance(*args)

        learner.advance = spied
        _, gradients, _ = learning.learn(learner, stream, 0)
        fractions.append(gradients / glances)
    np.testing.assert_array_equal(remembered[:12], remembered[12:])
    assert fractions == [12, 12]
    assert len(keys) == 36
    assert len({*keys[12:]}) == 24


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
    ("values", "said"),
    [
        ({"memory": 5}, "--memory must hold at least the 10 images .*; got 5"),
        ({"inner_steps": 3}, "--inner-steps must divide the --batch-size, 10, .*; got"),
        ({"images_per_task": 7}, "--batch-size must be at most the 7 training images"),
        ({"classes_per_task": 4}, "got 4, which leaves 2 over"),
        ({"model": "resnet18"}, "--model must have no BatchNorm, .*; got resnet18"),
    ],
)
def test_what_cannot_be_run_is_refused(values, said, tiny):
    with pytest.raises(ValueError, match=said):
        learning.run(dataclasses.replace(tiny, **values))


def test_a_task_without_test_images_is_refused(digits, tiny, monkeypatch):
    there = digits.test.labels < 2  # those of two tasks of the five at most
    test = data.Examples(digits.test.images[there], digits.test.labels[there])
    other = dataclasses.replace(digits, test=test)
    monkeypatch.setattr(learning.data, "load", lambda *_: other)
    with pytest.raises(ValueError, match=r"of every task; got none of classes \d, \d"):
        learning.run(tiny)


def test_a_stream_that_diverges_is_refused(digits, tiny):
    config = dataclasses.replace(tiny, learning_rate=1e38)
    with pytest.raises(FloatingPointError, match="of SGD was nan at the end of task 1"):
        learning.learn(
            Learner(Network(config, digits), METHODS["sgd"]),
            tasks.split(digits, 2, 0),
            0,
        )
