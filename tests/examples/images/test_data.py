"""Datasets by name: read into memory, and the order of their examples."""

import collections
import importlib
import json
import pathlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from examples.images import builders
from examples.images import data
from examples.images import streams

SHARED = pathlib.Path(__file__).parents[4] / "shared" / "data"


def counts(examples):
    """How often each labeled image occurs."""
    return collections.Counter(
        (image.tobytes(), int(label)) for image, label in zip(*examples, strict=True)
    )


def test_digits():
    dataset = data.load("digits")
    again = data.find("digits")
    assert isinstance(again, data.Dataset)
    np.testing.assert_array_equal(again.train.images, dataset.train.images)
    assert (dataset.name, dataset.classes) == ("digits", 10)
    assert dataset.train.images.shape == (1297, 8, 8, 1)
    assert dataset.test.images.shape == (500, 8, 8, 1)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32
    images, labels = load_digits(return_X_y=True)
    scaled = np.round(images * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    # Every image is in one of the splits.
    together = counts(dataset.train) + counts(dataset.test)
    assert together == counts(data.Examples(scaled, labels))
    train = dataset.train.images / 255
    np.testing.assert_allclose(dataset.mean, train.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, train.std(axis=(0, 1, 2)), rtol=1e-6)


def test_statistics_of_each_channel():
    images = np.random.default_rng(0).integers(256, size=(1001, 3, 5, 3), dtype="u1")
    images[..., 1] //= 4
    mean, std = data._statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)) / 255, rtol=1e-6)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2)) / 255, rtol=1e-6)


def test_order_is_the_same_everywhere():
    np.testing.assert_array_equal(data.order(3, 1, 8), [2, 1, 4, 0, 5, 7, 6, 3])
    orders = [data.order(seed, epoch, 100) for seed in (0, 1) for epoch in (0, 1)]
    for one in orders:
        assert one.dtype == np.int32
        np.testing.assert_array_equal(np.sort(one), np.arange(100))
    assert len({one.tobytes() for one in orders}) == 4


def test_padded_batches():
    images = np.arange(1, 1 + 7 * 4, dtype=np.uint8).reshape(7, 2, 2, 1)
    examples = data.Examples(images, np.arange(7, dtype=np.int32))
    batches = list(data.padded_batches(examples, 3))
    for batch in batches:
        assert [array.shape for array in batch] == [(3, 2, 2, 1), (3,), (3,)]
        assert [array.dtype for array in batch] == [np.uint8, np.int32, np.bool]
    for whole, i in ((images, 0), (examples.labels, 1)):
        kept = np.concatenate([batch[i][batch[2]] for batch in batches])
        np.testing.assert_array_equal(kept, whole)
    np.testing.assert_array_equal(batches[-1][2], [True, False, False])
    assert not batches[-1][0][1:].any()


# ---- Real data -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def unpack():
    if not (SHARED / "unpack_data.py").exists():
        pytest.skip("the packed CIFAR-10 and Fashion-MNIST aren't beside the project")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SHARED)
        return importlib.import_module("unpack_data")


# unpack_data leaves closing its files to the interpreter.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_part_of_fashion_mnist(unpack, tmp_path, monkeypatch):
    arrays = unpack.load("fashion_mnist", check=False)
    part = tuple(array[: 1000 if i < 2 else 200] for i, array in enumerate(arrays))
    monkeypatch.setattr(unpack, "load", lambda *_, **__: part)
    folder = pathlib.Path(unpack.write_tfds("fashion_mnist", tmp_path))
    info = json.loads((folder / "dataset_info.json").read_text())
    for split, length in zip(info["splits"], (1000, 200), strict=True):
        split["shardLengths"] = [str(length)]
    (folder / "dataset_info.json").unlink()
    (folder / "dataset_info.json").write_text(json.dumps(info))
    dataset = data.load("fashion_mnist", tmp_path)
    assert counts(dataset.train) == counts(part[:2])
    assert counts(dataset.test) == counts(part[2:])
    assert dataset.classes == 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("cifar10", [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        ("fashion_mnist", [0.2860], [0.3530]),
    ],
)
def test_real_data(unpack, tmp_path, name, mean, std):
    unpack.write_tfds(name, tmp_path)
    dataset = data.load(name, tmp_path)
    arrays = unpack.load(name)
    assert counts(dataset.train) == counts(arrays[:2])
    assert counts(dataset.test) == counts(arrays[2:])
    # As published.
    np.testing.assert_allclose(dataset.mean, mean, atol=1e-4)
    np.testing.assert_allclose(dataset.std, std, atol=1e-4)
    # As a stream: the same batches where it starts later.
    source = builders.find(name, tmp_path).train
    options = dict(batch_size=128, image_size=24, train=True, workers=2)
    whole = streams.stream(source, **options)
    batches = [next(whole) for _ in range(3)]
    resumed = next(streams.stream(source, start_step=2, **options))
    np.testing.assert_array_equal(resumed.images, batches[2].images)
    np.testing.assert_array_equal(resumed.labels, batches[2].labels)
