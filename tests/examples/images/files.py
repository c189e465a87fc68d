"""Small datasets in files, of every kind that the trainer reads."""

import io

import numpy as np
from PIL import Image

ARRAYS = {
    "x_train": np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8),
    "y_train": np.array([0, 1, 2, 0, 1, 2]),
    "x_test": np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)[::-1],
    "y_test": np.array([2, 0, 1]),
}


def photo(i):
    """An image of a size and a color of its own."""
    pixels = np.zeros((24 + i % 7, 20 + i % 5, 3), np.uint8)
    pixels[...] = (i, 255 - i, 7)
    return pixels


def encoded(pixels, form="PNG", mode="RGB"):
    """The content of a file of these pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form)
    return buffer.getvalue()


def write_folder(path, classes=("cat", "dog"), train=4, test=2, evaluated="test"):
    """A folder of photos, numbered through all classes, of names in their order."""
    number = 0
    for split, count in (("train", train), (evaluated, test)):
        for name in classes:
            folder = path / split / name
            folder.mkdir(parents=True)
            for _ in range(count):
                (folder / f"{number:04}.png").write_bytes(encoded(photo(number)))
                number += 1
    return path


def write_arrays(path, **changes):
    """A file of ARRAYS; a change to None leaves one out."""
    arrays = {**ARRAYS, **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def write_table(path, count=4, **splits):
    """A dataset of photos that Hugging Face's `datasets` has saved.

    Labels are given for each split; without, `count` of two classes are in train, and
    two in test.
    """
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    splits = splits or {"train": [0, 1] * (count // 2), "test": [1, 0]}
    tables = {
        split: datasets.Dataset.from_dict(
            {"image": [Image.fromarray(photo(i)) for i in range(len(labels))]}
            | {"label": labels},
            features=features,
        )
        for split, labels in splits.items()
    }
    datasets.DatasetDict(tables).save_to_disk(str(path))
    return path


# A module of networks, good and bad ones.
NETWORKS = """
import flax.linen as nn


class Perceptron(nn.Module):
    classes: int
    dtype: type

    @nn.compact
    def __call__(self, images, train):
        x = nn.Dense(4, dtype=self.dtype)(images.reshape(len(images), -1))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.classes)(x)


class Normed(Perceptron):
    @nn.compact
    def __call__(self, images, train):
        x = nn.BatchNorm(use_running_average=not train)(images)
        return nn.Dense(self.classes)(x.mean((1, 2)))


def with_norm(*, classes, dtype):
    return Normed(classes, dtype)


class Wide(Perceptron):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(self.classes + 1)(images.mean((1, 2)))


class Pixelwise(Perceptron):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(self.classes)(images)


class Pair(Perceptron):
    @nn.compact
    def __call__(self, images, train):
        return super().__call__(images, train), images


class Integers(Perceptron):
    @nn.compact
    def __call__(self, images, train):
        return super().__call__(images, train).astype(int)


class Trainless(Perceptron):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.classes)(images.mean((1, 2)))


class Counting(Perceptron):
    @nn.compact
    def __call__(self, images, train):
        self.variable("counts", "calls", lambda: 0)
        return nn.Dense(self.classes)(images.mean((1, 2)))


class Empty(Perceptron):
    @nn.compact
    def __call__(self, images, train):
        return images.reshape(len(images), -1)[:, : self.classes]


class Broken(Perceptron):
    @nn.compact
    def __call__(self, images, train):
        raise RuntimeError("first line\\nsecond line")


def narrow(classes):
    return Perceptron(classes, float)


def no_module(classes, dtype):
    return dict


three = 3
"""
