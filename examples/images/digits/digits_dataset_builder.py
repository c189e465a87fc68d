"""scikit-learn's digits as a dataset of TFDS, which needs no network and no TensorFlow.

TFDS names a builder after its folder, hence this one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

TEST_IMAGES = 500


class Builder(tfds.core.GeneratorBasedBuilder):
    """1797 handwritten digits of 8 by 8 pixels; 500 of them, drawn once, are for tests.

    The draw is not stratified. Gray levels are 0 to 16 in scikit-learn, 0 to 255 here.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    # Not an Image: TensorFlow encodes those.
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # scikit-learn brings the images
        from sklearn.datasets import load_digits  # takes a second, and is needed once

        images, labels = load_digits(return_X_y=True)
        images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
        order = np.random.default_rng(0).permutation(len(labels))
        test, train = np.split(order, [TEST_IMAGES])
        return {
            "train": self._generate_examples(images[train], labels[train]),
            "test": self._generate_examples(images[test], labels[test]),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": image, "label": int(label)}
