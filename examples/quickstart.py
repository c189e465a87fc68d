"""Five optimizers on digits with wrong labels, at the same number of gradients.

Trains a perceptron on scikit-learn's digits (1797 images of 8 by 8 pixels) with SGD,
SAM, Multistep-SAM, Lookahead-SAM and Lookbehind-SAM, prints a table and saves a plot:

    python -m examples.quickstart

Training sees 1000 images, 40 % of them with a wrong label; the other 797 images, with
their true labels, are the test set. The network can memorize all labels, and SGD
does. The seed draws the split, the wrong labels, the initial weights and the order of
the batches, all the same for every method, so the table compares them with SGD seed by
seed.

SGD spends one gradient on a step, SAM two, Multistep-SAM and Lookbehind k + 1, so one
budget buys them different numbers of steps. That isn't why they differ: SGD is below
them at the end of its training, and also with fewer steps, as its curve shows.

The radii were chosen by test accuracy at the end of the default budget, averaged over
two seeds that the table does not use (100 and 101; they split the same images): for
each method, the best ρ of 0.25, 0.35, 0.5, 0.7 and 1. SGD ends between 65 and 67 % with
any learning rate from 0.03 to 0.3. α = 1/k is Lookbehind's default; Lookahead's k and α
are those of its paper.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
import math
import os
from pathlib import Path
import time
from typing import Any
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import lookbehind_optax as lb
from lookbehind_optax import measure

TRAINING_IMAGES = 1000
WRONG_LABELS = 400  # of the training images
BATCH_SIZE = 100
LEARNING_RATE = 0.1
EVALUATIONS = 20  # of the test accuracy in each run

Optimizer = optax.GradientTransformationExtraArgs
Data = tuple[np.ndarray, np.ndarray]  # images and labels


class Method(NamedTuple):
    """An optimizer around SGD, and the gradients that its step costs."""

    wrap: Callable[[Optimizer], Optimizer]
    gradients: int


METHODS = {
    "SGD": Method(lambda sgd: sgd, 1),
    "SAM": Method(lambda sgd: lb.sam(sgd, rho=1.0), 2),
    "Multistep-SAM": Method(lambda sgd: lb.multistep_sam(sgd, rho=0.35, k=2), 3),
    "Lookahead-SAM": Method(
        lambda sgd: lb.lookahead(lb.sam(sgd, rho=0.7), k=5, alpha=0.5), 2
    ),
    "Lookbehind-SAM": Method(lambda sgd: lb.lookbehind_sam(sgd, rho=0.5, k=2), 3),
}


class Perceptron(nn.Module):
    """Two hidden layers of 256 units, 85 002 parameters."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of the ten digits."""
        x = nn.relu(nn.Dense(256)(images))
        x = nn.relu(nn.Dense(256)(x))
        return nn.Dense(10)(x)


model: Any = Perceptron()  # Flax types `apply` as though it could return a tuple


# ---- The training step, the part to copy ---------------------------------------------
def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy."""
    logits = model.apply(params, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


def make_train_step(optimizer: Optimizer) -> Callable:
    """A jitted step of the optimizer, sharpness-aware or not."""
    return jax.jit(lb.make_step(loss, optimizer))


# ---- The end of it -------------------------------------------------------------------


@jax.jit
def accuracy(params: optax.Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Percentage of the images that are classified as labeled."""
    return 100 * jnp.mean(model.apply(params, images).argmax(-1) == labels)


class Digits(NamedTuple):
    """The images of a seed.

    Attributes:
      train: training images and their labels.
      wrong: those of them whose label is wrong.
      test: the other images, and their true labels.
    """

    train: Data
    wrong: Data
    test: Data


def split_digits(seed: int) -> Digits:
    """Splits the digits, and gives some of the training images a wrong label."""
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    images = images.astype(np.float32) / 16
    rng = np.random.default_rng(seed)
    train, test = np.split(rng.permutation(len(labels)), [TRAINING_IMAGES])
    given, wrong = labels[train], rng.permutation(TRAINING_IMAGES)[:WRONG_LABELS]
    given[wrong] = (given[wrong] + rng.integers(1, 10, WRONG_LABELS)) % 10
    return Digits(
        train=(images[train], given),
        wrong=(images[train[wrong]], given[wrong]),
        test=(images[test], labels[test]),
    )


def batches(seed: int, data: Data) -> Iterator[Data]:
    """An endless stream of batches, each epoch in a new order."""
    images, labels = data
    rng = np.random.default_rng(seed)
    while True:
        for batch in rng.permutation(len(labels)).reshape(-1, BATCH_SIZE):
            yield images[batch], labels[batch]


def train(
    optimizer: Optimizer, train_step: Callable, steps: int, seed: int
) -> Iterator[tuple[float, float]]:
    """One run, which yields its progress at regular intervals.

    That is the test accuracy, and the share of wrong labels that the network predicts.
    """
    digits = split_digits(seed)
    params = model.init(jax.random.key(seed), digits.train[0])
    opt_state = optimizer.init(params)
    stream = batches(seed, digits.train)
    for _ in range(EVALUATIONS):
        for _ in range(steps // EVALUATIONS):
            params, opt_state, _ = train_step(params, opt_state, *next(stream))
        # Lookahead's slow weights are in its state; the others evaluate params.
        slow = lb.eval_params(opt_state, params)
        yield float(accuracy(slow, *digits.test)), float(accuracy(slow, *digits.wrong))


def standard_error(samples: np.ndarray) -> np.ndarray:
    """The standard error of the mean over the first axis."""
    return np.std(samples, axis=0, ddof=1) / math.sqrt(len(samples))


def print_table(
    curves: dict[str, np.ndarray], seconds: dict[str, float], gradients: int
) -> None:
    """Prints each method's final accuracy, what it gains over SGD, and its cost."""
    seeds = len(curves["SGD"])
    print(
        f"\nDevice: {jax.devices()[0].device_kind}; n = {seeds} seeds. Accuracy: on "
        "the test images at the end, in %, mean ± standard\ndeviation. Over SGD: mean "
        "difference on the same seed ± its standard error. Learned: wrong labels\nthat "
        "the network gives, in %. Gradients: of one run. Seconds: of all n.\n"
    )
    print("Method            Accuracy      Over SGD  Learned  Gradients  Seconds")
    for name, curve in curves.items():
        final, learned = curve[:, -1].T
        gain = final - curves["SGD"][:, -1, 0]
        print(
            f"{name:<14}  {final.mean():4.1f} ± {final.std(ddof=1):3.1f}  "
            f"{gain.mean():+5.1f} ± {standard_error(gain):4.2f}  "
            f"{learned.mean():7.1f}  {gradients:9}  {seconds[name]:7.1f}"
        )


def plot(curves: dict[str, np.ndarray], gradients: int, output: Path) -> None:
    """Saves the mean test accuracy of each method, its standard error as a band."""
    spent = gradients * np.arange(1, EVALUATIONS + 1) / EVALUATIONS
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for style, (name, curve) in zip(
        measure.styles(curves), curves.items(), strict=True
    ):
        accuracies = curve[..., 0]
        mean, error = accuracies.mean(axis=0), standard_error(accuracies)
        axes.plot(spent, mean, label=name, **style)
        band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
        axes.fill_between(spent, mean - error, mean + error, **band)
    axes.set_xlabel("gradient evaluations")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(
        f"Digits, {WRONG_LABELS / TRAINING_IMAGES:.0%} of the training labels wrong\n"
        f"perceptron; mean ± standard error over n = {len(curves['SGD'])} seeds",
        fontsize="medium",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(output, dpi=150)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.quickstart",
        allow_abbrev=False,
        description="Train a perceptron on scikit-learn's digits, 40 % of them with a "
        "wrong label, with SGD, SAM, Multistep-SAM, Lookahead-SAM and Lookbehind-SAM, "
        "all with the same number of gradient evaluations; print a table and save a "
        "plot. By default this takes about two minutes on two CPU cores.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=5,
        metavar="N",
        help="runs of each method, from 2 to 1000; a seed sets the train/test split, "
        "the wrong labels, the initial weights and the order of the batches",
    )
    # Every method takes whole steps from one evaluation to the next.
    unit = EVALUATIONS * math.lcm(*(method.gradients for method in METHODS.values()))
    parser.add_argument(
        "--gradients",
        type=int,
        default=3000,
        metavar="N",
        help=f"gradient evaluations in each run, a multiple of {unit}; each on a batch "
        f"of {BATCH_SIZE} images",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("quickstart.png"),
        metavar="FILE",
        help="PNG file for the plot, overwritten if it exists",
    )
    given = parser.parse_args(arguments)
    check(parser, given, unit)
    return given


def check(
    parser: argparse.ArgumentParser, given: argparse.Namespace, unit: int
) -> None:
    """Refuses early what would fail after the training."""
    if not 2 <= given.seeds <= 1000:
        parser.error(
            "argument --seeds: must be from 2, so that there is a spread to show, to "
            f"1000; got {given.seeds}"
        )
    if not 0 < given.gradients < 2**31 or given.gradients % unit:
        parser.error(
            f"argument --gradients: must be a positive multiple of {unit}, so that "
            f"every method can spend exactly that many; got {given.gradients}"
        )
    output, folder = given.output, given.output.parent
    if output.suffix.lower() != ".png" or output.is_dir() or not folder.is_dir():
        parser.error(
            "argument --output: must be a .png file in a folder that exists; "
            f"got {output}"
        )
    if not os.access(output if output.exists() else folder, os.W_OK):
        parser.error(f"argument --output: must be writable; got {output}")


def main(arguments: list[str] | None = None) -> None:
    """Trains with every method on every seed, and reports."""
    given = parse_arguments(arguments)
    seeds, gradients = given.seeds, given.gradients
    curves, seconds = {}, {}
    with tqdm(total=len(METHODS) * seeds * gradients, unit=" gradients") as progress:
        for name, method in METHODS.items():
            progress.set_description(name)
            start = time.perf_counter()
            steps = gradients // method.gradients
            schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps)
            optimizer = method.wrap(optax.sgd(schedule, momentum=0.9))
            train_step = make_train_step(optimizer)
            curves[name] = np.empty((seeds, EVALUATIONS, 2))
            for seed in range(seeds):
                run = train(optimizer, train_step, steps, seed)
                for i, percentages in enumerate(run):
                    curves[name][seed, i] = percentages
                    progress.update(gradients // EVALUATIONS)
            seconds[name] = time.perf_counter() - start
    print_table(curves, seconds, gradients)
    plot(curves, gradients, given.output)
    print(f"\nSaved the plot as {given.output}.")


if __name__ == "__main__":
    main()
