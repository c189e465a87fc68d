"""Batches of images that are read as they are needed."""

import numpy as np
import pytest

from examples.images import data
from examples.images import streams
from examples.images.sources import Arrays
from tests.examples.images.photos import write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return data.find("photos", write_photos(tmp_path_factory.mktemp("photos")))


def photo_stream(found, split="train", **options):
    defaults = dict(batch_size=8, image_size=16, seed=0, train=True, workers=2)
    return streams.stream(getattr(found, split), **defaults | options)


def take(count, batches):
    return [next(batches) for _ in range(count)]


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        np.testing.assert_array_equal(batch.images, other.images)
        np.testing.assert_array_equal(batch.labels, other.labels)


def test_what_is_written_is_read(photos):
    batches = list(photo_stream(photos, train=False))
    assert [len(batch.labels) for batch in batches] == [8] * 6 + [2]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    assert sorted(labels) == list(range(50))
    expected = np.stack([labels, 255 - labels, np.full(50, 7)], axis=1)
    np.testing.assert_array_equal(
        images, np.broadcast_to(expected[:, None, None], images.shape)
    )


def test_arrays_are_streamed_too():
    rising = np.arange(8, dtype=np.uint8)
    for channels in (1, 3):
        images = np.full((8, 12, 9, channels), rising[:, None, None, None])
        options = dict(batch_size=3, image_size=4, train=False)
        batches = [*streams.stream(Arrays(images, rising), **options)]
        assert [batch.images.shape for batch in batches] == [
            (3, 4, 4, 3),
            (3, 4, 4, 3),
            (2, 4, 4, 3),
        ]
        for batch in batches:
            expected = np.full_like(batch.images, batch.labels[:, None, None, None])
            np.testing.assert_array_equal(batch.images, expected)


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


def test_without_augmentation_it_trains_on_what_is_evaluated(photos):
    whole = {
        label: image
        for batch in photo_stream(photos, train=False)
        for image, label in zip(*batch, strict=True)
    }
    for batch in take(12, photo_stream(photos, augment=False)):  # two epochs
        for image, label in zip(*batch, strict=True):
            np.testing.assert_array_equal(image, whole[label])


@pytest.mark.parametrize("step", [1, 6, 13])
def test_stream_resumes_where_it_stopped(photos, step):
    """In the first epoch, at the end of one, and in the third."""
    batches = take(step + 3, photo_stream(photos))[step:]
    assert_equal(batches, take(3, photo_stream(photos, start_step=step)))


def test_stream_resumes_without_reading_what_came_before(photos, monkeypatch):
    read = []
    real = streams.random_crop
    monkeypatch.setattr(
        streams, "random_crop", lambda *args: (read.append(1), real(*args))[1]
    )
    next(photo_stream(photos, start_step=10**6))
    assert len(read) <= 3 * 8 + 2  # the batch, what is held ready, one in each thread


def test_evaluation_resumes_where_it_stopped(photos):
    batches = list(photo_stream(photos, train=False))
    assert_equal(batches[4:], list(photo_stream(photos, train=False, start_step=4)))


def test_batch_larger_than_the_split(photos):
    with pytest.raises(ValueError, match="a batch of 51 is more than the 50"):
        photo_stream(photos, batch_size=51)


def test_damaged_image_in_a_stream(photos):
    class Damaged:
        def __getitem__(self, index):
            if index == 30:
                raise OSError("image 30 can't be decoded")
            return photos.train[index]

        def __len__(self):
            return 50

    batches = streams.stream(Damaged(), batch_size=8, image_size=8, train=True)
    with pytest.raises(OSError, match=r"^image 30 can't be decoded$"):
        take(7, batches)


def ramps(height, width):
    """Red grows to the right, green downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return pixels


def test_central_crop():
    crop = streams.central_crop(ramps(200, 400), 56).astype(float)
    assert crop.shape == (56, 56, 3)
    # The square of side 175 in the middle: from pixels 112.5 to 287.5 of 400 across,
    # and 12.5 to 187.5 of 200 down.
    middles = (np.arange(56) + 0.5) / 56 * 175 - 0.5
    across = np.broadcast_to((112.5 + middles) / 399 * 255, (56, 56))
    down = np.broadcast_to((12.5 + middles) / 199 * 255, (56, 56))
    np.testing.assert_allclose(crop[..., 0], across, atol=1)
    np.testing.assert_allclose(crop[..., 1], down.T, atol=1)


def test_random_crops():
    image = ramps(256, 256)
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
    crop = streams.random_crop(ramps(8, 400), 32, np.random.default_rng(0))
    assert crop.shape == (32, 32, 3)
    assert np.ptp(crop[..., 1].astype(int)) > 200  # of the whole height
    assert 100 < crop[..., 0].min() <= crop[..., 0].max() < 155  # in the middle
