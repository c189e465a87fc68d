"""The packed form of CIFAR-10: nothing is lost, and damage is found."""

import numpy as np
import pytest

from benchmarks.accelerator import cifar


def random_arrays(train=7, test=4):
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (train, 8, 8, 3)) // 8 + 100
    return cifar.Arrays(
        smooth.astype(np.uint8),
        rng.integers(0, 10, train).astype(np.uint8),
        rng.integers(0, 256, (test, 8, 8, 3)).astype(np.uint8),
        rng.integers(0, 10, test).astype(np.uint8),
    )


def test_both_parts_are_the_arrays(tmp_path):
    arrays = random_arrays()
    paths = cifar.pack(arrays, tmp_path / "new")
    assert [path.name for path in paths] == [
        "cifar10.part-1-of-2.bin",
        "cifar10.part-2-of-2.bin",
    ]
    unpacked, parts = cifar.unpack(tmp_path / "new")
    assert parts == 2
    for found, expected in zip(unpacked, arrays, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("part", [0, 1])
def test_one_part_is_every_other_image(tmp_path, part):
    arrays = random_arrays()
    cifar.pack(arrays, tmp_path)[1 - part].unlink()
    unpacked, parts = cifar.unpack(tmp_path)
    assert parts == 1
    for found, expected in zip(unpacked, arrays, strict=True):
        np.testing.assert_array_equal(found, expected[part::2])


def test_it_is_smaller_where_neighbors_are_alike(tmp_path):
    images = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None], (9, 64, 64))
    images = np.stack([images] * 3, axis=-1)
    labels = np.zeros(9, np.uint8)
    paths = cifar.pack(cifar.Arrays(images, labels, images, labels), tmp_path)
    assert sum(path.stat().st_size for path in paths) < images.nbytes / 3


@pytest.mark.parametrize("place", [0, -1, -30])
def test_damage_is_found(tmp_path, place):
    path, _ = cifar.pack(random_arrays(), tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"cifar10\.part-1-of-2\.bin is"):
        cifar.unpack(tmp_path)


def test_a_folder_without_parts(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is none"):
        cifar.unpack(tmp_path)
