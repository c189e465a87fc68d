"""What Hugging Face's `datasets` has saved, as `hf:PATH`."""

import numpy as np
import pytest

from examples.images import data
from tests.examples.images.files import photo
from tests.examples.images.files import write_table


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("hf") / "table")


def test_rows_are_read_in_any_order(saved):
    found = data.find(f"hf:{saved}")
    assert isinstance(found, data.Streamed)
    assert found.classes == 2
    np.testing.assert_array_equal(found.train.labels, [0, 1, 0, 1])
    for i in (3, 0):
        image, label = found.train[i]
        np.testing.assert_array_equal(image, photo(i))
        assert label == i % 2
    assert [found.test[i][1] for i in range(2)] == [1, 0]


def test_hidden_test_labels_leave_the_validation_split(tmp_path):
    hidden = {"train": [0, 1], "test": [-1, -1], "validation": [1, 1, 0]}
    found = data.find(f"hf:{write_table(tmp_path / 'table', **hidden)}")
    np.testing.assert_array_equal(found.test.labels, [1, 1, 0])
