"""scikit-learn's digits, which need no network."""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from examples.images.sources import Arrays
from examples.images.sources import digest
from examples.images.sources import Splits

TEST_IMAGES = 500


def find() -> Splits:
    """1797 handwritten digits of 8 by 8 pixels; 500 of them, drawn once, are for tests.

    The draw is not stratified. Gray levels are 0 to 16 in scikit-learn, 0 to 255 here.
    """
    digits: Any = load_digits()
    images, labels = digits.data, digits.target
    images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = (
        Arrays(images[part], labels[part]) for part in np.split(order, [TEST_IMAGES])
    )
    found = digest([train.labels, test.labels])
    return Splits("digits", 10, images.shape[1:], train, test, found)
