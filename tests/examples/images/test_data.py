"""Datasets through TFDS: read, kept, downloaded, streamed; and what goes wrong."""

import collections
import errno
import importlib
import importlib.util
import io
import json
import pathlib
import socket
import sys
import time

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits
import tensorflow_datasets as tfds

from examples.images import builders
from examples.images import data
from examples.images import streams
from tests.examples.images.photos import Photos
from tests.examples.images.photos import prepare

SHARED = pathlib.Path(__file__).parents[4] / "shared" / "data"
NO_TENSORFLOW = importlib.util.find_spec("tensorflow") is None
FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


def encoded(pixels, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


class Jpegs(Photos):
    """What takes more of TensorFlow than files and PNGs."""

    def _split_generators(self, dl_manager):
        from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow

        tensorflow.image.decode_jpeg(b"")


class Unlabelled(Photos):
    """Nothing to evaluate on."""

    labels = (("train", 0), ("test", -1))

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Tensor(shape=(2, 2, 1), dtype=np.uint8),
                "label": tfds.features.ClassLabel(num_classes=50),
            }
        )
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {
            split: iter([(0, {"image": np.zeros((2, 2, 1), np.uint8), "label": label})])
            for split, label in self.labels
        }


class Untrainable(Unlabelled):
    """Nothing to train on."""

    labels = (("test", 0),)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("photos"))


def photo_stream(folder, split="train", **options):
    defaults = dict(batch_size=8, image_size=16, seed=0, train=True, workers=2)
    return streams.stream("photos", split, folder, **defaults | options)


def take(count, batches):
    return [next(batches) for _ in range(count)]


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        np.testing.assert_array_equal(batch.images, other.images)
        np.testing.assert_array_equal(batch.labels, other.labels)


def counts(examples):
    """How often each labelled image occurs."""
    return collections.Counter(
        (image.tobytes(), int(label)) for image, label in zip(*examples, strict=True)
    )


@pytest.fixture(scope="module")
def prepared_digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, data.load("digits", folder)


@pytest.fixture
def digits_dir(prepared_digits, tmp_path):
    """A folder with digits, to be damaged, and the files in it."""
    source = prepared_digits[0] / "digits" / "1.0.0"
    folder = tmp_path / "digits" / "1.0.0"
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def load_from(folder):
    return data.load("digits", folder.parents[1])


# ---- In memory -----------------------------------------------------------------------


def test_digits(prepared_digits):
    _, dataset = prepared_digits
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


def test_digits_are_split_alike_every_time(prepared_digits, tmp_path):
    again = data.load("digits", tmp_path)
    assert_equal([again.train], [prepared_digits[1].train])
    assert_equal([again.test], [prepared_digits[1].test])


def test_statistics_of_each_channel():
    images = np.random.default_rng(0).integers(256, size=(1001, 3, 5, 3), dtype="u1")
    images[..., 1] //= 4
    mean, std = data._statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)) / 255, rtol=1e-6)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2)) / 255, rtol=1e-6)


def test_second_start_reads_the_kept_arrays(prepared_digits, monkeypatch):
    folder, dataset = prepared_digits
    monkeypatch.setattr(data, "_decode", None)
    again = data.load("digits", folder)
    assert_equal([again.train, again.test], [dataset.train, dataset.test])
    np.testing.assert_array_equal(again.mean, dataset.mean)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_kept_arrays_are_made_again(digits_dir, damage, prepared_digits):
    cache = digits_dir / "decoded.npz"
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 1
    short = {"truncated": len(content) // 2, "flipped": None, "empty": 0}
    cache.write_bytes(content[: short[damage]])
    with pytest.warns(UserWarning, match=r"decoded\.npz is damaged and made again"):
        dataset = load_from(digits_dir)
    assert_equal([dataset.train], [prepared_digits[1].train])
    load_from(digits_dir)  # without warning


def test_kept_arrays_of_something_else_are_made_again(digits_dir, prepared_digits):
    cache = digits_dir / "decoded.npz"
    with np.load(cache) as file:
        arrays = {**file}
    arrays["source"] = np.array("digits/0.9.0")
    arrays["train_images"] = np.zeros_like(arrays["train_images"])
    np.savez(cache, **arrays)
    assert_equal([load_from(digits_dir).train], [prepared_digits[1].train])


def test_folder_that_cannot_be_written_to(digits_dir, monkeypatch):
    (digits_dir / "decoded.npz").unlink()

    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(data.tempfile, "NamedTemporaryFile", refuse)
    with pytest.warns(UserWarning, match="every start decodes the images anew"):
        assert len(load_from(digits_dir).test.labels) == 500


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


# ---- What goes wrong -----------------------------------------------------------------


def test_unknown_name():
    with pytest.raises(ValueError, match=r"did you mean .*cifar10"):
        data.load("cifar11")
    with pytest.raises(ValueError, match=r"did you mean .*digits"):
        data.load("digit")
    with pytest.raises(ValueError, match=r"no dataset zzzzzz\. digits is built in"):
        data.load("zzzzzz")
    with pytest.raises(OSError, match=r"can't open mnist:9\.9\.9"):
        data.load("mnist:9.9.9")


def test_no_classification():
    with pytest.raises(ValueError, match=r"isn't a dataset for image(.|\n)*'title'"):
        data.load("ag_news_subset")


def test_absent_without_network(tmp_path, monkeypatch):
    def refuse(*_):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(builders.socket, "getaddrinfo", refuse)
    monkeypatch.setattr(builders.urllib.request, "getproxies", dict)
    with pytest.raises(FileNotFoundError) as caught:
        data.load("cifar100", tmp_path)
    for words in (str(tmp_path), "www.cs.toronto.edu", "network", "--data-dir"):
        assert words in str(caught.value)


def test_what_must_be_downloaded_by_hand(tmp_path):
    with pytest.raises(OSError, match=r"ILSVRC2012_img_train\.tar") as caught:
        streams.stream(
            "imagenet2012", "train", tmp_path, batch_size=1, image_size=8, train=True
        )
    assert str(tmp_path / "downloads" / "manual") in str(caught.value)


def test_download_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(Photos, "url", "http://127.0.0.1:9/photos.tar.gz")
    monkeypatch.setattr(
        "tensorflow_datasets.core.download.downloader.MAX_RETRIES", 0, raising=True
    )
    with pytest.raises(OSError, match=r"refused(.|\n)*where there is a network"):
        photo_stream(tmp_path)


def test_full_disk_while_preparing(tmp_path, monkeypatch):
    def fail(*_, **__):
        try:
            raise FULL_DISK
        except OSError as error:
            raise RuntimeError("while extracting") from error

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    monkeypatch.setattr(builders, "_resolves", lambda _: True)
    with pytest.raises(OSError, match=r"is full: download 1.. MB needed") as caught:
        data.load("cifar10", tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "--data-dir" in str(caught.value)


def test_full_disk_before_preparing(tmp_path, monkeypatch):
    name = "tensorflow_datasets.core.utils.has_sufficient_disk_space"
    monkeypatch.setattr(name, lambda *_, **__: False)
    with pytest.raises(OSError, match="is full"):
        data.load("digits", tmp_path)


def test_full_disk_while_keeping_arrays(digits_dir, monkeypatch):
    (digits_dir / "decoded.npz").unlink()

    def fail(file, **_):
        file.write(b"begun")
        raise FULL_DISK

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match=r"is full: 0 MB needed, [\d,]+ MB free"):
        load_from(digits_dir)
    assert not list(digits_dir.glob("decoded*"))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "gone"])
def test_damaged_records(digits_dir, split, damage):
    (digits_dir / "decoded.npz").unlink()
    (path,) = digits_dir.glob(f"*{split}.array_record*")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    short = {"truncated": len(content) // 2, "flipped": None, "empty": 0, "gone": 0}
    path.write_bytes(content[: short[damage]])
    if damage == "gone":
        path.unlink()
    with pytest.raises(OSError, match=r"digits/1.0.0 can't be read") as caught:
        load_from(digits_dir)
    assert f"delete {digits_dir}" in str(caught.value)


def test_damaged_description(digits_dir):
    (digits_dir / "dataset_info.json").write_text("{")
    with pytest.raises(OSError, match="can't open digits") as caught:
        load_from(digits_dir)
    assert str(digits_dir.parents[1]) in str(caught.value)
    assert "delete" in str(caught.value)


def test_records_for_tensorflow(digits_dir):
    path = digits_dir / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(OSError, match="format that can't be read without TensorFlow"):
        load_from(digits_dir)


def test_another_run_prepares_it_meanwhile(tmp_path, monkeypatch):
    prepare = tfds.core.DatasetBuilder.download_and_prepare

    def lose_the_race(self, **options):
        prepare(self, **options)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lose_the_race)
    assert len(data.load("digits", tmp_path).train.labels) == 1297


def test_nothing_to_evaluate_on(tmp_path):
    with pytest.raises(ValueError, match="no labelled test or validation split"):
        data.load("unlabelled", tmp_path)


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(ValueError, match="no training images; its splits are test"):
        data.load("untrainable", tmp_path)


@pytest.mark.skipif(not NO_TENSORFLOW, reason="TensorFlow is installed")
def test_preparing_that_takes_tensorflow(tmp_path):
    with pytest.raises(OSError, match=r"tensorflow\.image\.decode_jpeg: pip install"):
        streams.stream(
            "jpegs", "train", tmp_path, batch_size=1, image_size=8, train=False
        )
    assert "tensorflow" not in sys.modules


# ---- As a stream ---------------------------------------------------------------------


def test_what_is_downloaded_is_read(photos):
    batches = list(photo_stream(photos, train=False))
    assert [len(batch.labels) for batch in batches] == [8] * 6 + [2]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    assert sorted(labels) == list(range(50))
    expected = np.stack([labels, 255 - labels, np.full(50, 7)], axis=1)
    np.testing.assert_array_equal(
        images, np.broadcast_to(expected[:, None, None], images.shape)
    )
    assert ("tensorflow" in sys.modules) != NO_TENSORFLOW


def test_test_images_without_labels_are_not_for_testing(photos):
    batches = photo_stream(photos, "test", train=False)
    labels = np.concatenate([batch.labels for batch in batches])
    assert sorted(labels) == list(range(10))  # of the validation split


def test_images_of_different_sizes_do_not_load(photos):
    with pytest.raises(ValueError, match=r"use examples\.streams\.stream"):
        data.load("photos", photos)


def test_images_that_are_not_encoded_do_not_stream(prepared_digits):
    with pytest.raises(ValueError, match=r"use examples\.data\.load"):
        streams.stream(
            "digits",
            "train",
            prepared_digits[0],
            batch_size=8,
            image_size=8,
            train=True,
        )


def test_stream_takes_each_example_once_an_epoch(photos):
    batches = photo_stream(photos)
    epochs = [
        np.concatenate([batch.labels for batch in take(6, batches)]) for _ in range(3)
    ]
    for labels in epochs:
        assert len(set(labels)) == 48  # of 50, in batches of 8
    assert len({tuple(labels) for labels in epochs}) == 3


def test_stream_follows_from_its_seed(photos):
    batches = take(8, photo_stream(photos))
    assert_equal(batches, take(8, photo_stream(photos, workers=5)))
    for seed in (1, 2):
        other = next(photo_stream(photos, seed=seed))
        assert not np.array_equal(other.labels, batches[0].labels)


@pytest.mark.parametrize("step", [1, 6, 13])
def test_stream_goes_on_where_it_stopped(photos, step):
    """In the first epoch, at the end of one, and in the third."""
    batches = take(step + 3, photo_stream(photos))[step:]
    assert_equal(batches, take(3, photo_stream(photos, start_step=step)))


def test_stream_goes_on_without_reading_what_came_before(photos, monkeypatch):
    read = []
    real = streams.random_crop
    monkeypatch.setattr(
        streams, "random_crop", lambda *args: (read.append(1), real(*args))[1]
    )
    next(photo_stream(photos, start_step=10**6))
    assert len(read) <= 3 * 8 + 2  # the batch, what is held ready, one in each thread


def test_evaluation_goes_on_where_it_stopped(photos):
    batches = list(photo_stream(photos, train=False))
    assert_equal(batches[4:], list(photo_stream(photos, train=False, start_step=4)))


def test_batch_larger_than_the_split(photos):
    with pytest.raises(ValueError, match="a batch of 51 is more than the 50"):
        photo_stream(photos, batch_size=51)


def test_damaged_record_in_a_stream(photos, tmp_path):
    source = photos / "photos" / "1.0.0"
    folder = tmp_path / "photos" / "1.0.0"
    folder.mkdir(parents=True)
    for path in source.iterdir():
        content = bytearray(path.read_bytes())
        if "train" in path.name:
            content[content.index(b"IHDR")] ^= 255
        (folder / path.name).write_bytes(content)
    with pytest.raises(OSError, match=f"can't be read .*delete {folder}"):
        take(7, photo_stream(tmp_path))


def ramps(height, width):
    """Red grows to the right, green downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return pixels


def test_central_crop():
    crop = streams.central_crop(encoded(ramps(200, 400)), 56).astype(float)
    assert crop.shape == (56, 56, 3)
    # The square of side 175 in the middle: from pixels 112.5 to 287.5 of 400 across,
    # and 12.5 to 187.5 of 200 down.
    middles = (np.arange(56) + 0.5) / 56 * 175 - 0.5
    across = np.broadcast_to((112.5 + middles) / 399 * 255, (56, 56))
    down = np.broadcast_to((12.5 + middles) / 199 * 255, (56, 56))
    np.testing.assert_allclose(crop[..., 0], across, atol=1)
    np.testing.assert_allclose(crop[..., 1], down.T, atol=1)


def test_random_crops():
    image = encoded(ramps(256, 256))
    rng = np.random.default_rng(0)
    areas, ratios, mirrored, lefts = [], [], [], []
    for _ in range(400):
        crop = streams.random_crop(image, 32, rng).astype(float)
        # Edges of the crop in the image, from the colors of its outermost pixels.
        spans = np.array([crop[16, -1, 0] - crop[16, 0, 0], crop[-1, 16, 1]])
        spans[1] -= crop[0, 16, 1]
        mirrored.append(spans[0] < 0)
        w, h = np.abs(spans) / 255 * 32 / 31
        areas.append(w * h)
        ratios.append(w / h)
        lefts.append(crop[16, :, 0].min() / 255)
    assert 0.07 < min(areas) < 0.12
    assert max(areas) > 0.9
    assert 0.70 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.43
    assert 0.4 < np.mean(mirrored) < 0.6
    assert max(lefts) > 0.5


def test_random_crop_of_a_long_image():
    crop = streams.random_crop(encoded(ramps(8, 400)), 32, np.random.default_rng(0))
    assert crop.shape == (32, 32, 3)
    assert np.ptp(crop[..., 1].astype(int)) > 200  # of the whole height
    assert 100 < crop[..., 0].min() <= crop[..., 0].max() < 155  # in the middle


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_images_that_are_not_rgb(mode):
    buffer = io.BytesIO()
    image = Image.fromarray(np.full((40, 30, 3), 100, np.uint8)).convert(mode)
    image.save(buffer, "PNG" if mode == "RGBA" else "JPEG")
    crop = streams.central_crop(buffer.getvalue(), 8)
    np.testing.assert_allclose(crop, 100, atol=2)
    assert crop.shape == (8, 8, 3)


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
    started = time.perf_counter()
    again = data.load(name, tmp_path)
    assert time.perf_counter() - started < 2
    assert_equal([again.train, again.test], [dataset.train, dataset.test])
    options = dict(batch_size=128, image_size=24, train=True, workers=2)
    batches = take(3, streams.stream(name, "train", tmp_path, **options))
    resumed = streams.stream(name, "train", tmp_path, start_step=2, **options)
    assert_equal(batches[2:], take(1, resumed))
