"""How images reach the training step, and training on a stream of them."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest

from examples.images import data
from examples.images import feeds
from examples.images import streams
from examples.images.config import Config
from examples.images.training import Training
from examples.trainer import meshes
from examples.trainer import runs
from tests.examples.images.photos import write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return data.find("photos", write_photos(tmp_path_factory.mktemp("photos")))


pytestmark = pytest.mark.usefixtures("standard_promotion")


def pieces(process, processes, found):
    options = dict(batch_size=8, image_size=8, seed=0)
    part = (process, processes)
    train = streams.stream(found.train, train=True, part=part, **options)
    test = streams.stream(found.test, train=False, part=part, **options)
    return [next(train) for _ in range(9)], list(test)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batches_of_one(processes, photos):
    whole, test = pieces(0, 1, photos)
    parts = [pieces(i, processes, photos) for i in range(processes)]
    for i, batch in enumerate(whole):
        for process, (train, _) in enumerate(parts):
            np.testing.assert_array_equal(
                train[i].images, batch.images[process::processes]
            )
            np.testing.assert_array_equal(
                train[i].labels, batch.labels[process::processes]
            )
    labels = [batch.labels for _, batches in parts for batch in batches]
    expected = np.concatenate([batch.labels for batch in test])
    assert sorted(np.concatenate(labels)) == sorted(expected)


def test_processes_that_cannot_share_a_batch(photos):
    with pytest.raises(ValueError, match="3 processes can't share a batch of 8"):
        pieces(0, 3, photos)


def test_a_stream_feeds_whole_test_batches(photos):
    feed = feeds.Streamed(photos, (8,), 0, meshes.layout(()), 16)
    (batch,) = feed.evaluation(photos.test)
    images, labels, mask = map(np.asarray, batch)
    assert images.shape == (256, 16, 16, 3)
    assert mask.sum() == 10
    assert sorted(labels[mask]) == list(range(10))


def test_all_processes_feed_as_many_test_batches(photos, monkeypatch):
    # 10 images of 3 processes: 4, 3 and 3; a batch of theirs is one image.
    monkeypatch.setattr(feeds, "EVALUATION_BATCH", 3)
    seen = []
    for process in range(3):
        feed = feeds.Streamed(photos, (9,), 0, meshes.layout(()), 16)
        feed.part = (process, 3)
        batches = list(feed.evaluation(photos.test))
        assert len(batches) == 4
        seen += [int(label) for _, labels, mask in batches for label in labels[mask]]
    assert sorted(seen) == list(range(10))


def test_resident_images_are_those_of_the_order():
    dataset = data.load("digits")
    feed = feeds.Resident(dataset, (3, 100), 7, meshes.layout(()))
    order = data.order(7, 2, len(dataset.train.labels))
    (first,) = feed.batches(8, 9)  # of the third epoch, with 4 steps in each
    np.testing.assert_array_equal(first, order[:300].reshape(3, 100))
    np.testing.assert_array_equal(feed.stacked(9, 11), feed.indices(9, 11))
    images, labels = feed.take(feed.arrays, first)
    np.testing.assert_array_equal(images, dataset.train.images[np.asarray(first)])
    np.testing.assert_array_equal(labels, dataset.train.labels[np.asarray(first)])


def test_resize():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    assert feeds.resize(jax.numpy.asarray(images), 4).dtype == np.uint8
    large = feeds.resize(jax.numpy.full((5, 2, 4, 4, 3), 9, np.uint8), 8)
    np.testing.assert_array_equal(large, np.full((5, 2, 8, 8, 3), 9.0))


# Training on a stream.

STREAM = Config(
    dataset="photos", batch_size=8, epochs=2, image_size=16, switch_minibatches=True
)


def interrupted_at(step):
    """An `interruptions` that asks to stop once so many pieces were trained."""

    @runs.contextlib.contextmanager
    def interruptions():
        calls = iter(range(1, 1000))
        yield lambda: signal.SIGTERM * (next(calls) == step)

    return interruptions


@pytest.mark.thorough
def test_training_on_a_stream_resumes_in_the_middle_of_an_epoch(
    photos, tmp_path, monkeypatch
):
    config = dataclasses.replace(STREAM, label_noise=0.2, validation=0.1)
    runs.run(config, Training(config, photos), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "interruptions", interrupted_at(2))
        with pytest.raises(runs.Stopped, match=r"SIGTERM and saved at step [12]"):
            runs.run(config, Training(config, photos), tmp_path / "stopped")
    runs.run(config, Training(config, photos), tmp_path / "stopped")
    logs = [(tmp_path / x / "log.jsonl").read_text() for x in ("whole", "stopped")]
    assert logs[0] == logs[1]
    records = [json.loads(line) for line in logs[0].splitlines()]
    assert len(records) == 2
    assert {"valid_loss", "valid_accuracy", "flipped_accuracy"} <= {*records[1]}
