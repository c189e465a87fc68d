"""Streams of tasks, and what is measured of them."""

import pathlib
import re
import subprocess

import numpy as np
from PIL import Image
import pytest

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


def test_tiny_imagenet_becomes_a_folder_as_the_page_says(tmp_path, monkeypatch):
    """An archive of the same layout, with fewer images, one of them gray."""
    archive = tmp_path / "tiny-imagenet-200"

    def save(path, level, mode="RGB"):
        path = archive / path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64), level, "u1")).convert(mode).save(path)

    save("train/n02/images/n02_0.JPEG", 50)
    save("train/n01/images/n01_0.JPEG", 200)
    save("train/n01/images/n01_1.JPEG", 220, "L")
    (archive / "train/n01/n01_boxes.txt").write_text("n01_0.JPEG\t0\t0\t62\t62\n")
    save("test/images/test_0.JPEG", 9)
    save("val/images/val_0.JPEG", 100)
    save("val/images/val_1.JPEG", 120)
    (archive / "val/val_annotations.txt").write_text(
        "val_0.JPEG\tn02\t0\t32\t44\t62\nval_1.JPEG\tn01\t0\t32\t44\t62\n"
    )
    page = pathlib.Path(__file__).parents[3] / "docs/lifelong.md"
    (commands,) = re.findall(r"```bash\n(curl .*?)```", page.read_text(), re.DOTALL)
    unpacked = commands[commands.index("rm -r") :]
    subprocess.run(["bash", "-e", "-c", unpacked], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    dataset = data.load("folder:tiny-imagenet-200")
    assert dataset.classes == 2
    for examples, expected in (
        (dataset.train, [(200, 0), (220, 0), (50, 1)]),
        (dataset.test, [(120, 0), (100, 1)]),
    ):
        assert examples.images.shape[1:] == (64, 64, 3)
        levels = examples.images[:, 0, 0, 0].tolist()
        assert [*zip(levels, examples.labels, strict=True)] == expected
