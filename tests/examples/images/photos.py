"""Small datasets as TFDS prepares them, written without TensorFlow."""

import pathlib

from array_record.python.array_record_module import ArrayRecordWriter
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from tests.examples.images.files import encoded
from tests.examples.images.files import photo


class Photos(tfds.core.GeneratorBasedBuilder):
    """Images of different sizes; the test labels are hidden."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(num_classes=50),
            }
        )
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        raise NotImplementedError

    def _generate_examples(self):
        raise NotImplementedError


class Pixels(Photos):
    """Images that aren't encoded."""

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Tensor(shape=(4, 6, 1), dtype=np.uint8),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
        )
        return self.dataset_info_from_configs(features=features)


def write(builder, splits):
    """Writes a dataset of TFDS into its folder: records, and what describes them.

    Args:
      builder: of the dataset.
      splits: images (arrays, or encoded) and labels of each.
    """
    folder = pathlib.Path(builder.data_path)
    folder.mkdir(parents=True)
    features = builder.info.features
    serializer = ExampleSerializer(features.get_serialized_info())
    infos = []
    for split, examples in splits.items():
        records = [
            serializer.serialize_example(
                features.encode_example({"image": image, "label": label})
            )
            for image, label in examples
        ]
        path = folder / f"{builder.name}-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            dataset_name=builder.name,
            split=split,
            filetype_suffix="array_record",
        )
        info = tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(records)],
            num_bytes=sum(map(len, records)),
            filename_template=template,
        )
        infos.append(info)
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    builder.info.write_to_directory(folder)


def write_photos(folder):
    """Photos in a data folder."""
    labeled = [(encoded(photo(i)), i) for i in range(50)]
    hidden = [(image, -1) for image, _ in labeled[:5]]
    splits = {"train": labeled, "validation": labeled[:10], "test": hidden}
    write(Photos(data_dir=folder, file_format="array_record"), splits)
    return folder


def write_pixels(folder, train=12, test=6):
    """Pixels in a data folder, in the order of their labels."""

    def examples(count):
        images = np.arange(count * 24, dtype=np.uint8).reshape(count, 4, 6, 1)
        return [(image, i % 3) for i, image in enumerate(images)]

    write(
        Pixels(data_dir=folder, file_format="array_record"),
        {"train": examples(train), "test": examples(test)},
    )
    return folder
