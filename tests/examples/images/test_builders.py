"""Datasets of TFDS: found, prepared, read without TensorFlow; and what goes wrong."""

import errno
import socket
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from examples.images import builders
from examples.images import data
from tests.examples.images.files import photo
from tests.examples.images.photos import Photos
from tests.examples.images.photos import Pixels
from tests.examples.images.photos import write
from tests.examples.images.photos import write_photos
from tests.examples.images.photos import write_pixels

FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def tensorflow(monkeypatch):
    """Lets preparing begin, of which these tests replace what needs TensorFlow."""
    monkeypatch.setattr(builders, "has_tensorflow", lambda: True)


def test_a_prepared_dataset_is_read_without_tensorflow(photos):
    found = data.find("photos", photos)
    assert isinstance(found, data.Streamed)
    assert (found.classes, len(found.train), len(found.test)) == (50, 50, 10)
    for i in (0, 49):
        image, label = found.train[i]
        np.testing.assert_array_equal(image, photo(label))
    np.testing.assert_array_equal(found.train.labels, np.arange(50))
    if not builders.has_tensorflow():
        assert "tensorflow" not in sys.modules


def test_test_images_without_labels_are_not_for_testing(photos):
    found = data.find("photos", photos)
    np.testing.assert_array_equal(found.test.labels, range(10))  # those of validation


def test_images_of_one_size_are_read_into_memory(tmp_path):
    found = data.find("pixels", write_pixels(tmp_path, train=1203))
    assert isinstance(found, data.Dataset)
    assert found.train.images.shape == (1203, 4, 6, 1)
    np.testing.assert_array_equal(found.train.labels, np.arange(1203) % 3)
    expected = np.arange(1203 * 24).astype(np.uint8).reshape(-1, 4, 6, 1)
    np.testing.assert_array_equal(found.train.images, expected)


def test_images_of_different_sizes_do_not_load(photos):
    with pytest.raises(ValueError, match=r"one size .*\(24, 20, 3\) and \(25"):
        data.load("photos", photos)


# ---- What goes wrong -----------------------------------------------------------------


def test_unknown_name():
    with pytest.raises(ValueError, match=r"did you mean .*cifar10"):
        data.load("cifar11")
    with pytest.raises(ValueError, match=r"did you mean .*digits"):
        data.load("digit")
    with pytest.raises(
        ValueError, match=r"no dataset zzzzzz\. Give your own as folder:"
    ):
        data.load("zzzzzz")
    with pytest.raises(OSError, match=r"can't open mnist:9\.9\.9"):
        data.load("mnist:9.9.9")


def test_no_classification():
    with pytest.raises(ValueError, match=r"isn't a dataset for image(.|\n)*'title'"):
        data.load("ag_news_subset")


@pytest.mark.parametrize("name", ["cifar100", "imagenet2012", "photos"])
def test_preparing_takes_tensorflow(name, tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "has_tensorflow", lambda: False)
    monkeypatch.setattr(builders, "_resolves", None)  # nothing is downloaded before
    with pytest.raises(OSError, match="pip install tensorflow-cpu") as caught:
        data.find(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("tensorflow")
def test_absent_without_network(tmp_path, monkeypatch):
    def refuse(*_):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(builders.socket, "getaddrinfo", refuse)
    monkeypatch.setattr(builders.urllib.request, "getproxies", dict)
    with pytest.raises(FileNotFoundError) as caught:
        data.load("cifar100", tmp_path)
    for words in (str(tmp_path), "www.cs.toronto.edu", "network", "--data-dir"):
        assert words in str(caught.value)


def fail_with(monkeypatch, error):
    def fail(*_, **__):
        raise RuntimeError("while preparing") from error

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    monkeypatch.setattr(builders, "_resolves", lambda _: True)


@pytest.mark.usefixtures("tensorflow")
def test_download_that_fails(tmp_path, monkeypatch):
    fail_with(monkeypatch, ConnectionError("the connection was refused"))
    with pytest.raises(
        OSError, match=r"refused\. Start once with a network connection"
    ):
        data.load("cifar10", tmp_path)


@pytest.mark.usefixtures("tensorflow")
def test_what_has_no_checksum_is_not_downloaded(tmp_path, monkeypatch):
    def prepare(self, download_config, **_):
        assert download_config.force_checksums_validation
        write_pixels(tmp_path)

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
    assert data.load("pixels", tmp_path).classes == 3


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("error", [FULL_DISK, OSError("Not enough disk space.")])
def test_full_disk_while_preparing(tmp_path, monkeypatch, error):
    fail_with(monkeypatch, error)
    with pytest.raises(OSError, match=r"is full: the download takes 1.. MB") as caught:
        data.load("cifar10", tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "--data-dir" in str(caught.value)


@pytest.mark.usefixtures("tensorflow")
def test_another_run_prepares_it_meanwhile(tmp_path, monkeypatch):
    def lose_the_race(self, **options):
        write_pixels(tmp_path)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lose_the_race)
    assert len(data.load("pixels", tmp_path).train.labels) == 12


@pytest.fixture
def pixels_dir(tmp_path):
    """A folder with pixels, to be damaged."""
    return write_pixels(tmp_path, train=1000, test=1000) / "pixels" / "1.0.0"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "gone"])
def test_damaged_records(pixels_dir, split, damage):
    (path,) = pixels_dir.glob(f"*{split}.array_record*")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    short = {"truncated": len(content) // 2, "flipped": None, "empty": 0, "gone": 0}
    path.write_bytes(content[: short[damage]])
    if damage == "gone":
        path.unlink()
    with pytest.raises(OSError, match=r"pixels/1.0.0 can't be read") as caught:
        data.load("pixels", pixels_dir.parents[1])
    assert f"delete {pixels_dir}" in str(caught.value)


def test_damaged_image(tmp_path):
    examples = [(b"no image", 0), (b"no image", 1)]
    builder = Photos(data_dir=tmp_path, file_format="array_record")
    write(builder, {"train": examples, "test": examples})
    message = r"image 0 of photos/1.0.0 test can't be decoded .*delete .*photos/1.0.0"
    with pytest.raises(OSError, match=message):
        data.find("photos", tmp_path)


def test_damaged_description(pixels_dir):
    (pixels_dir / "dataset_info.json").write_text("{")
    with pytest.raises(OSError, match="can't open pixels") as caught:
        data.load("pixels", pixels_dir.parents[1])
    assert str(pixels_dir.parents[1]) in str(caught.value)
    assert "delete" in str(caught.value)


def test_records_for_tensorflow(pixels_dir):
    path = pixels_dir / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(OSError, match="format that can't be read without TensorFlow"):
        data.load("pixels", pixels_dir.parents[1])


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": 0, "test": -1}, "no labeled test or validation split"),
        ({"train": 0}, "no labeled test or validation split; its splits are train"),
        ({"test": 0}, "no training images; its splits are test"),
    ],
)
def test_splits_that_are_missing(tmp_path, splits, message):
    examples = {
        split: [(np.zeros((4, 6, 1), np.uint8), label)]
        for split, label in splits.items()
    }
    write(Pixels(data_dir=tmp_path, file_format="array_record"), examples)
    with pytest.raises(ValueError, match=message):
        data.load("pixels", tmp_path)
