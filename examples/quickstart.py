"""Five optimizers on handwritten digits, at the same number of gradient evaluations.

Trains a small Flax convnet on scikit-learn's digits (1797 images of 8 by 8 pixels) with
SGD, SAM, ASAM, Lookahead-SAM and Lookbehind-SAM, prints a table and saves a plot:

    python -m examples.quickstart

Digits are easy: on clean labels all five end within half a point of one another. So
that there is something to overfit, training sees 500 images, 20 % of them with labels
drawn at random, a setting in which SAM is known to help; the other 1297 images, with
their true labels, are the test set. A seed draws the split, the random labels, the
initial weights and the order of the batches, all alike for every method, so the table
compares them with SGD seed by seed. Over five seeds these differences come out smaller
than their standard errors: this shows how to use the optimizers, not which is best.

SGD spends one gradient on a step, SAM two, Lookbehind k + 1, so one budget buys them
different numbers of steps. At one learning rate per *step*, SGD would fit the random
labels while the others were still learning, and the comparison would be one of early
stopping. So the learning rate is one per *gradient*, a step's being that times its
number of gradients, and follows the same cosine of the gradients spent.

The numbers were chosen by test accuracy at the end of the default budget, averaged over
four seeds that the table does not use (100 to 103; they split the same images). The
learning rate per gradient is SGD's best of 0.004, 0.006 and 0.008; ρ is the best of
0.05, 0.1 and 0.2 for SAM and for Lookbehind, and of 0.25, 0.5 and 1 for ASAM; Lookahead
has SAM's ρ and the better α of 0.5 and 0.8. Lookbehind's α is 1 / k, its default.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
import math
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

TRAINING_IMAGES = 500
RANDOM_LABELS = 0.2  # share of the training labels
BATCH_SIZE = 50
LEARNING_RATE = 0.006  # for each gradient of a step
EVALUATIONS = 10  # of the test accuracy in each run

Optimizer = optax.GradientTransformationExtraArgs
Data = tuple[np.ndarray, np.ndarray]  # images and labels


class Method(NamedTuple):
    """An optimizer around SGD, the gradients its step costs, its color in the plot."""

    wrap: Callable[[Optimizer], Optimizer]
    gradients: int
    color: str  # of Okabe and Ito's palette, which colour-blind readers can tell apart


METHODS = {
    "SGD": Method(lambda sgd: sgd, 1, "#000000"),
    "SAM": Method(lambda sgd: lb.sam(sgd, rho=0.1), 2, "#0072B2"),
    "ASAM": Method(lambda sgd: lb.asam(sgd, rho=0.25), 2, "#E69F00"),
    "Lookahead-SAM": Method(
        lambda sgd: lb.lookahead(lb.sam(sgd, rho=0.1), k=5, alpha=0.8), 2, "#009E73"
    ),
    "Lookbehind-SAM": Method(
        lambda sgd: lb.lookbehind_sam(sgd, rho=0.05, k=2, alpha=0.5), 3, "#D55E00"
    ),
}


class ConvNet(nn.Module):
    """Two convolutions and a linear layer, 6090 parameters."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of the ten digits."""
        x = images
        for features in (16, 32):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return nn.Dense(10)(x.reshape(len(x), -1))


model: Any = ConvNet()  # Flax types `apply` as though it could return a tuple


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
    """Percentage of the images that are classified as labelled."""
    return 100 * jnp.mean(model.apply(params, images).argmax(-1) == labels)


def split_digits(seed: int) -> tuple[Data, Data]:
    """Training images, some of them with random labels, and test images."""
    digits: Any = load_digits()
    images, labels = digits.data, digits.target
    images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    rng = np.random.default_rng(seed)
    train, test = np.split(rng.permutation(len(labels)), [TRAINING_IMAGES])
    is_random = rng.random(TRAINING_IMAGES) < RANDOM_LABELS
    noisy = np.where(is_random, rng.integers(10, size=TRAINING_IMAGES), labels[train])
    return (images[train], noisy), (images[test], labels[test])


def batches(seed: int, data: Data) -> Iterator[Data]:
    """Batches without end, each epoch in a new order."""
    images, labels = data
    rng = np.random.default_rng(seed)
    while True:
        for batch in rng.permutation(len(labels)).reshape(-1, BATCH_SIZE):
            yield images[batch], labels[batch]


def train(
    optimizer: Optimizer, train_step: Callable, steps: int, seed: int
) -> Iterator[float]:
    """One run, which yields the test accuracy at regular intervals."""
    training_data, test_data = split_digits(seed)
    params = model.init(jax.random.key(seed), training_data[0])
    opt_state = optimizer.init(params)
    stream = batches(seed, training_data)
    for _ in range(EVALUATIONS):
        for _ in range(steps // EVALUATIONS):
            params, opt_state, _ = train_step(params, opt_state, *next(stream))
        # Lookahead's slow weights are in its state; the others evaluate params.
        yield float(accuracy(lb.eval_params(opt_state, params), *test_data))


def standard_error(samples: np.ndarray) -> np.ndarray:
    """Of the mean over the first axis."""
    return np.std(samples, axis=0, ddof=1) / math.sqrt(len(samples))


def print_table(
    curves: dict[str, np.ndarray], seconds: dict[str, float], gradients: int
) -> None:
    """Prints each method's final accuracy, what it gains over SGD, and its cost."""
    seeds = len(curves["SGD"])
    print(
        f"\nDevice: {jax.devices()[0].device_kind}; n = {seeds} seeds. Test accuracy "
        "in %: mean ± standard deviation;\nover SGD: mean difference on the same seed "
        "± its standard error. Gradient evaluations\nare those of one run, seconds "
        "those of all n with compilation and testing.\n"
    )
    print(f"{'Method':<14}  {'Accuracy':>12}  {'Over SGD':>12}  Gradients  Seconds")
    for name, curve in curves.items():
        final = curve[:, -1]
        gain = final - curves["SGD"][:, -1]
        print(
            f"{name:<14}  {final.mean():5.2f} ± {final.std(ddof=1):4.2f}  "
            f"{gain.mean():+5.2f} ± {standard_error(gain):4.2f}  "
            f"{gradients:9}  {seconds[name]:7.1f}"
        )


def plot(curves: dict[str, np.ndarray], gradients: int, output: Path) -> None:
    """Saves the mean test error of each method, its standard error as a band."""
    spent = gradients * np.arange(1, EVALUATIONS + 1) / EVALUATIONS
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    # The curves end close together, where a linear axis would show but one of them.
    axes.set_yscale("log")
    ticks = [4, 5, 6, 8, 10, 15, 20, 30, 40, 60, 80]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    for name, curve in curves.items():
        color = METHODS[name].color
        mean, error = 100 - curve.mean(axis=0), standard_error(curve)
        axes.plot(spent, mean, color=color, marker="o", markersize=4, label=name)
        axes.fill_between(
            spent, mean - error, mean + error, color=color, alpha=0.15, linewidth=0
        )
    axes.set_xlabel("gradient evaluations in a run")
    axes.set_ylabel("test error (%), log scale")
    axes.set_title(
        f"Digits, {RANDOM_LABELS:.0%} of the training labels random\n"
        f"mean ± standard error over n = {len(curves['SGD'])} seeds"
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(output, dpi=150)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line, and refuses now what would fail after the training."""
    parser = argparse.ArgumentParser(
        description="Train a small convnet on scikit-learn's digits with SGD, SAM, "
        "ASAM, Lookahead-SAM and Lookbehind-SAM, all with the same number of gradient "
        "evaluations; print a table of test accuracies and save a plot of the test "
        "error. By default this takes about a minute on two CPU cores.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=5,
        metavar="N",
        help="runs of each method, 2 or more; a seed sets the train/test split, the "
        "random labels, the initial weights and the order of the batches",
    )
    # Every method takes whole steps from one evaluation to the next.
    unit = EVALUATIONS * math.lcm(*(method.gradients for method in METHODS.values()))
    parser.add_argument(
        "--gradients",
        type=int,
        default=1200,
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
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error(
            "argument --seeds: must be at least 2, so that there is a spread to show; "
            f"got {arguments.seeds}"
        )
    if arguments.gradients <= 0 or arguments.gradients % unit:
        parser.error(
            f"argument --gradients: must be a positive multiple of {unit}, so that "
            f"every method can spend exactly that many; got {arguments.gradients}"
        )
    output = arguments.output
    if output.suffix.lower() != ".png" or not output.parent.is_dir():
        parser.error(
            "argument --output: must be a .png file in a folder that exists; "
            f"got {output}"
        )
    return arguments


def main() -> None:
    """Trains with every method on every seed, and reports."""
    arguments = parse_arguments()
    seeds, gradients = arguments.seeds, arguments.gradients
    curves, seconds = {}, {}
    with tqdm(total=len(METHODS) * seeds * gradients, unit=" gradients") as progress:
        for name, method in METHODS.items():
            progress.set_description(name)
            start = time.perf_counter()
            steps = gradients // method.gradients
            peak = LEARNING_RATE * method.gradients
            schedule = optax.cosine_decay_schedule(peak, steps)
            optimizer = method.wrap(optax.sgd(schedule, momentum=0.9))
            train_step = make_train_step(optimizer)
            curves[name] = np.empty((seeds, EVALUATIONS))
            for seed in range(seeds):
                run = train(optimizer, train_step, steps, seed)
                for i, percentage in enumerate(run):
                    curves[name][seed, i] = percentage
                    progress.update(gradients // EVALUATIONS)
            seconds[name] = time.perf_counter() - start
    print_table(curves, seconds, gradients)
    plot(curves, gradients, arguments.output)
    print(f"\nSaved the plot as {arguments.output}.")


if __name__ == "__main__":
    main()
