"""Tiny ImageNet as a dataset of TFDS, which has none, prepared without TensorFlow.

TFDS names a builder after its folder, hence this one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


class Builder(tfds.core.GeneratorBasedBuilder):
    """200 classes of ImageNet: 500 training and 50 validation images of 64 by 64 each.

    Classes are in the order of the archive's wnids.txt. Its test images have no labels
    and are left out.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    # Not an Image: TensorFlow encodes those.
                    "image": tfds.features.Tensor(shape=(64, 64, 3), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=200),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        folder = Path(dl_manager.download_and_extract(URL)) / "tiny-imagenet-200"
        names = (folder / "wnids.txt").read_text().split()
        labels = {name: label for label, name in enumerate(names)}
        train = {
            path: labels[path.parent.parent.name]
            for path in sorted(folder.glob("train/*/images/*.JPEG"))
        }
        lines = (folder / "val/val_annotations.txt").read_text().splitlines()
        validation = {
            folder / "val/images" / file: labels[name]
            for file, name, *_ in map(str.split, lines)
        }
        return {
            "train": self._generate_examples(train),
            "validation": self._generate_examples(validation),
        }

    def _generate_examples(
        self, labels: dict[Path, int]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, label in labels.items():
            with Image.open(path) as image:  # some are gray
                yield (
                    path.name,
                    {"image": np.asarray(image.convert("RGB")), "label": label},
                )
