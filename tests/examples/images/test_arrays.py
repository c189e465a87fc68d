"""Arrays in a file, as `PATH.npz`."""

import numpy as np
import pytest

from examples.images import data
from tests.examples.images.files import ARRAYS
from tests.examples.images.files import write_arrays


@pytest.mark.parametrize("channels", [None, 1, 3, 5])
def test_arrays_come_as_they_are(tmp_path, channels):
    images = {}
    for name in ("x_train", "x_test"):
        gray = ARRAYS[name]
        images[name] = gray if channels is None else np.stack([gray] * channels, -1)
    path = write_arrays(tmp_path / "a.npz", **images)
    found = data.find(str(path))
    assert isinstance(found, data.Dataset)
    assert found.classes == 3
    for examples, split in ((found.train, "train"), (found.test, "test")):
        x = images[f"x_{split}"]
        x = x if x.ndim == 4 else x[..., None]
        np.testing.assert_array_equal(examples.images, x)
        np.testing.assert_array_equal(examples.labels, ARRAYS[f"y_{split}"])
        assert examples.labels.dtype == np.int32
    expected = images["x_train"].reshape(-1, channels or 1).std(0) / 255
    np.testing.assert_allclose(found.std, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_labels_are_any_integers(tmp_path, dtype):
    path = write_arrays(tmp_path / "a.npz", y_train=ARRAYS["y_train"].astype(dtype))
    np.testing.assert_array_equal(data.find(str(path)).train.labels, ARRAYS["y_train"])


def test_large_ones_are_streamed(tmp_path, monkeypatch):
    path = write_arrays(tmp_path / "a.npz")
    monkeypatch.setattr(data, "MEMORY", 100)
    found = data.find(str(path))
    assert isinstance(found, data.Streamed)
    np.testing.assert_array_equal(found.train[2][0][..., 0], ARRAYS["x_train"][2])
    wide = np.zeros((6, 8, 8, 5), np.uint8)
    path = write_arrays(tmp_path / "b.npz", x_train=wide, x_test=wide[:3])
    with pytest.raises(ValueError, match="5 channels, which can't be streamed"):
        data.find(str(path))
