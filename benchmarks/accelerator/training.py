"""The trainer on CIFAR-10, one call per epoch in bfloat16, against its bare step."""

from pathlib import Path
import statistics
import time
from typing import Any

from benchmarks.accelerator import images
from benchmarks.speed import throughput
from examples.images.config import Config
from examples.images.training import Training

EPOCHS = 200  # for the projection


def measure(
    model: str,
    batch_size: int,
    m: int | None,
    repetitions: int,
    folder: Path,
    data: Path,
    **unused: Any,
) -> dict[str, Any]:
    """Images and gradients a second, and what 200 epochs of Lookbehind-SAM would take.

    Args:
      model: network.
      batch_size: images in a step.
      m: size of the groups of m-SAM; None for one group.
      repetitions: epochs that are timed.
      folder: of all results.
      data: folder of the packed images.
      unused: what other jobs need.

    Raises:
      Skip: if the images aren't there.
    """
    del unused
    dataset = images.load(data, folder)
    config = Config(
        dataset="cifar10",
        model=model,
        optimizer="lookbehind_sam",
        k=2,
        m=m,
        batch_size=batch_size,
        precision="bf16",
        epochs=EPOCHS,
    )
    steps = len(dataset.train.labels) // batch_size
    found = throughput.measure(config, dataset, steps, repetitions)
    epoch = statistics.median(sample["trainer_s"] for sample in found["samples"])
    evaluation = evaluation_seconds(Training(config, dataset))
    return {
        "model": model,
        "precision": "bf16",
        "batch_size": batch_size,
        "m": m,
        "dataset": images.part_of(dataset),
        **found,
        "evaluation_s": evaluation,
        "projected_s": EPOCHS * (epoch + evaluation),
    }


def evaluation_seconds(training: Training) -> float:
    """Seconds of an evaluation on the test images, after the one that compiles."""
    state = training.init()
    training.evaluate(state)
    begun = time.perf_counter()
    training.evaluate(state)
    return time.perf_counter() - begun
