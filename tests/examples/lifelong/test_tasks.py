"""Streams of tasks, and what is measured of them."""

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from examples.images import data
from examples.lifelong import tasks


def test_metrics_by_hand():
    accuracies = np.array([[0.9, 0.5, 0.4], [0.6, 0.8, 0.6], [0.7, 0.4, 1.0]])
    # (0.7 + 0.4 + 1.0) / 3, and (0.9 - 0.7 + 0.8 - 0.4) / 2.
    assert tasks.average_accuracy(accuracies) == pytest.approx(0.7)
    assert tasks.forgetting(accuracies) == pytest.approx(0.3)
    # Task 2 was best before it was learned, and is better at the end than ever.
    accuracies[:, 1] = [0.7, 0.6, 0.9]
    assert tasks.forgetting(accuracies) == pytest.approx((0.2 - 0.2) / 2)
    both = np.stack([accuracies, np.eye(3)])
    np.testing.assert_allclose(tasks.average_accuracy(both), [2.6 / 3, 1 / 3])
    np.testing.assert_allclose(tasks.forgetting(both), [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("classes_per_task", [2, 5])
def test_each_class_is_in_one_task_and_its_images_with_it(digits, classes_per_task):
    stream = tasks.split(digits, classes_per_task, seed=3)
    assert sorted(stream.classes.flat) == list(range(10))
    for part, examples in ((stream.train, digits.train), (stream.test, digits.test)):
        assert part.images is examples.images
        np.testing.assert_array_equal(
            stream.classes[part.tasks, part.labels], examples.labels
        )
    again, other = (tasks.split(digits, classes_per_task, seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.classes, stream.classes)
    assert (other.classes != stream.classes).any()


@pytest.mark.parametrize(
    ("classes_per_task", "said"),
    [
        (3, "2, 5; got 3, which leaves 1 over"),
        (4, "2, 5; got 4, which leaves 2 over"),
        (10, "2, 5; got 10$"),
        (1, "2, 5; got 1$"),
        (0, "2, 5; got 0$"),
        (-2, "2, 5; got -2$"),
        (20, "2, 5; got 20, which leaves 10 over"),
    ],
)
def test_a_split_that_leaves_classes_over_is_refused(digits, classes_per_task, said):
    with pytest.raises(
        ValueError,
        match="--classes-per-task must split the 10 classes of digits .*" + said,
    ):
        tasks.split(digits, classes_per_task, seed=0)


def test_tiny_imagenet_is_prepared_from_its_archive(tmp_path, monkeypatch):
    """An archive of the same layout, with fewer images, one of them gray."""
    archive = tmp_path / "archive/tiny-imagenet-200"
    names = ["n02", "n01"]
    archive.joinpath("val/images").mkdir(parents=True)
    archive.joinpath("wnids.txt").write_text("\n".join(names))

    def save(path, level, mode="RGB"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64), level, "u1")).convert(mode).save(path)

    for name, level in zip(names, (50, 200), strict=True):
        save(archive / f"train/{name}/images/{name}_0.JPEG", level)
    save(archive / "train/n01/images/n01_1.JPEG", 220, "L")
    save(archive / "val/images/val_0.JPEG", 100)
    line = "val_0.JPEG\tn01\t0\t32\t44\t62\n"
    archive.joinpath("val/val_annotations.txt").write_text(line)
    monkeypatch.setattr(
        tfds.download.DownloadManager,
        "download_and_extract",
        lambda self, url: archive.parent,
    )
    dataset = data.load("tiny_imagenet", tmp_path / "data")
    assert dataset.classes == 200
    assert dataset.train.images.shape == (3, 64, 64, 3)
    found = zip(dataset.train.images[:, 0, 0, 0], dataset.train.labels, strict=True)
    assert sorted(found) == [(50, 0), (200, 1), (220, 1)]
    assert (dataset.test.images == 100).all()
    assert dataset.test.labels == [1]
