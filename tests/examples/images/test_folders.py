"""A folder of images, as `folder:PATH`."""

import numpy as np
import pytest

from examples.images import data
from tests.examples.images.files import encoded
from tests.examples.images.files import photo
from tests.examples.images.files import write_folder


@pytest.mark.parametrize("evaluated", ["test", "validation", "val"])
def test_classes_are_numbered_by_name(tmp_path, evaluated):
    path = write_folder(tmp_path, ("dog", "cat"), evaluated=evaluated)
    found = data.find(f"folder:{path}")
    assert isinstance(found, data.Streamed)
    assert found.classes == 2
    # Written as dog 0 to 3, cat 4 to 7, and in the other split dog 8, 9, cat 10, 11.
    expected = [(4, 0), (5, 0), (6, 0), (7, 0), (0, 1), (1, 1), (2, 1), (3, 1)]
    for source, images in ((found.train, expected), (found.test, [(10, 0), (11, 0)])):
        np.testing.assert_array_equal(
            source.labels, [source[i][1] for i in range(len(source))]
        )
        for i, (number, label) in enumerate(images):
            image, given = source[i]
            np.testing.assert_array_equal(image, photo(number))
            assert given == label
    assert (len(found.train), len(found.test)) == (8, 4)


def test_the_test_split_comes_before_the_others(tmp_path):
    write_folder(tmp_path / "a")
    (tmp_path / "a/test").rename(tmp_path / "a/val")
    write_folder(tmp_path / "b", test=3)
    (tmp_path / "b/test").rename(tmp_path / "a/test")
    assert len(data.find(f"folder:{tmp_path}/a").test) == 6


def test_other_files_are_left_out_and_deeper_ones_are_not(tmp_path):
    write_folder(tmp_path)
    for name in ("train/cat/notes.txt", "train/cat/.x.png", "train/read.me"):
        (tmp_path / name).write_text("no image")
    (tmp_path / "train/.hidden").mkdir()
    (tmp_path / "train/cat/more").mkdir()
    (tmp_path / "train/cat/more/a.JPEG").write_bytes(encoded(photo(3), "JPEG"))
    found = data.find(f"folder:{tmp_path}")
    assert found.classes == 2
    np.testing.assert_array_equal(found.train.labels, [0] * 5 + [1] * 4)


def test_images_of_one_size_load(tmp_path):
    write_folder(tmp_path)
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(encoded(pixels))
    loaded = data.load(f"folder:{tmp_path}")
    assert loaded.train.images.shape == (8, 4, 4, 3)
    np.testing.assert_array_equal(loaded.test.images[3], pixels)
    np.testing.assert_array_equal(loaded.train.labels, [0] * 4 + [1] * 4)
