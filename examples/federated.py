"""Federated averaging with sharpness-aware clients, and an averaging server.

The training images are split over clients that differ in their classes. In each round
the server samples some of them; each trains the server's model on images of its own;
and the server's next model is the mean of theirs. Clients use SGD, SAM, ASAM or
Lookbehind-SAM, and over the last quarter of the rounds the server also keeps the mean
of its models (stochastic weight averaging), at no cost to the clients:

    python -m examples.federated

prints a table and saves the curves, in half a minute on two CPU cores. The network is
a perceptron of one hidden layer, and the images are scikit-learn's digits.

Rounds are what a federation waits for, and gradients what its clients pay. All methods
get the same number of both: in each round a client spends 12 gradients, with which SGD
takes 12 steps, SAM and ASAM take 6, and Lookbehind with k = 2 takes 4. A seed draws the
split, the initial weights, the clients of each round and their batches; the methods
share all of these but the batches.

As in `examples.quickstart`, the learning rate is one per gradient, a step's being that
times its number of gradients. It was chosen for each method together with ρ, by test
accuracy with averaging after 200 rounds, over eight seeds that the table does not use
(100 to 107; the test images are the same). Rates went from 0.02 to 0.05 for Lookbehind,
0.08 for SAM and ASAM, and 0.12 for SGD; ρ doubled from 0.05 to 0.4 for Lookbehind, from
0.1 to 0.8 for SAM, and from 0.5 to 2 for ASAM. Some pairs of the largest were left out,
and no choice is at an end. Lookbehind's α is 1 / k.

What is left out of Caldarola et al. 2022: the cycles of the learning rate while the
server averages (here it is constant, and each round's model enters the mean, which is
their algorithm with cycles of one round), and weight decay.

References:
  McMahan et al., `Communication-Efficient Learning of Deep Networks from Decentralized
  Data <https://arxiv.org/abs/1602.05629>`_, 2017; Caldarola et al., `Improving
  Generalization in Federated Learning by Seeking Flat Minima
  <https://arxiv.org/abs/2203.11834>`_, 2022; Izmailov et al., `Averaging Weights Leads
  to Wider Optima and Better Generalization <https://arxiv.org/abs/1803.05407>`_, 2018
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import math
from pathlib import Path
import sys
import time
from typing import Any
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import optax
from tqdm import tqdm
import tyro

from examples import data
import lookbehind_optax as lb

SPLITS = 1000  # drawn until one leaves each client enough images

Optimizer = optax.GradientTransformationExtraArgs


class Method(NamedTuple):
    """An optimizer around SGD.

    Attributes:
      wrap: puts it around SGD.
      learning_rate: of SGD, for each gradient of a step.
      gradients: evaluations that a step costs.
      color: in the plot, of Okabe and Ito's palette, which colour-blind readers can
        tell apart.
    """

    wrap: Callable[[Optimizer], Optimizer]
    learning_rate: float
    gradients: int
    color: str

    def optimizer(self) -> Optimizer:
        """Of a client, with momentum."""
        return self.wrap(optax.sgd(self.learning_rate * self.gradients, momentum=0.9))


METHODS = {
    "SGD": Method(lambda sgd: sgd, 0.08, 1, "#000000"),
    "SAM": Method(lambda sgd: lb.sam(sgd, rho=0.4), 0.05, 2, "#0072B2"),
    "ASAM": Method(lambda sgd: lb.asam(sgd, rho=1.0), 0.05, 2, "#E69F00"),
    "Lookbehind-SAM": Method(
        lambda sgd: lb.lookbehind_sam(sgd, rho=0.2, k=2, alpha=0.5), 0.03, 3, "#D55E00"
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Federated averaging with SGD, SAM, ASAM and Lookbehind-SAM on the clients.

    Prints a table of test accuracies, with and without stochastic weight averaging on
    the server, and saves the curves. This takes half a minute on two CPU cores.

    Attributes:
      clients: among which the 1297 training images are split.
      sampled: clients that train in a round.
      concentration: of the Dirichlet distribution of each class over the clients; the
        smaller it is, the fewer classes a client has.
      rounds: in the last quarter of them the server averages its models.
      gradients: evaluations that a client spends in a round, a multiple of 6.
      batch_size: images in a batch of a client; every client has as many, at least.
      seeds: runs of each method, 2 or more.
      output: PNG file of the curves, replaced if it exists.
    """

    clients: int = 20
    sampled: int = 5
    concentration: float = 0.1
    rounds: int = 200
    gradients: int = 12
    batch_size: int = 10
    seeds: int = 10
    output: Path = Path("federated.png")


def check(config: Config) -> None:
    """Refuses now what would fail after the training."""
    if not 1 <= config.sampled <= config.clients:
        raise ValueError(
            f"--sampled must be from 1 to the {config.clients} clients that there are; "
            f"got {config.sampled}"
        )
    if config.rounds < 4:
        raise ValueError(
            "--rounds must be at least 4, so that a quarter of them is one; "
            f"got {config.rounds}"
        )
    # Every method takes whole steps.
    unit = math.lcm(*(method.gradients for method in METHODS.values()))
    if config.gradients < 1 or config.gradients % unit:
        raise ValueError(
            f"--gradients must be a positive multiple of {unit}, so that every method "
            f"can spend exactly that many; got {config.gradients}"
        )
    if config.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1; got {config.batch_size}")
    if config.seeds < 2:
        raise ValueError(
            "--seeds must be at least 2, so that there is a spread to show; "
            f"got {config.seeds}"
        )
    if config.output.suffix.lower() != ".png" or not config.output.parent.is_dir():
        raise ValueError(
            f"--output must be a .png file in a folder that exists; got {config.output}"
        )


# ---- The clients' images -------------------------------------------------------------


def split(
    labels: np.ndarray, clients: int, concentration: float, smallest: int, seed: int
) -> list[np.ndarray]:
    r"""Splits examples over clients, each class in proportions of its own.

    .. math::
        (p_{c1}, \ldots, p_{cn}) \sim \mathrm{Dirichlet}(\beta, \ldots, \beta)

    where client i gets a share :math:`p_{ci}` of the examples of class c, up to
    rounding. Clients differ in size as well as in their classes. A split that leaves
    one of them too few examples is drawn again.

    Args:
      labels: class of each example, of shape (examples,).
      clients: their number n.
      concentration: β > 0; large for clients that are alike.
      smallest: examples that each client has at least.
      seed: the same split comes of the same seed.

    Returns:
      Indices of the examples of each client, in order. Each example has one client.

    Raises:
      ValueError: if the concentration isn't positive and finite, or no split among
        1000 gives each client enough examples.

    References:
      Yurochkin et al., `Bayesian Nonparametric Federated Learning of Neural Networks
      <https://arxiv.org/abs/1905.12022>`_, 2019; Li et al., `Federated Learning on
      Non-IID Data Silos <https://arxiv.org/abs/2102.02079>`_, 2022
    """
    if not 0 < concentration < math.inf:
        raise ValueError(
            f"concentration must be positive and finite; got {concentration}"
        )
    rng = np.random.default_rng(seed)
    owner = np.empty(len(labels), np.int32)
    for _ in range(SPLITS):
        for label in np.unique(labels):
            indices = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet(np.full(clients, concentration))
            places = (np.arange(len(indices)) + 0.5) / len(indices)
            owner[indices] = np.searchsorted(np.cumsum(shares)[:-1], places)
        if np.bincount(owner, minlength=clients).min() >= smallest:
            return [np.flatnonzero(owner == client) for client in range(clients)]
    raise ValueError(
        f"each of {clients} clients must have a batch of {smallest} of the "
        f"{len(labels)} training images, which none of {SPLITS} splits of "
        f"concentration {concentration} gave: take a smaller batch, fewer clients or a "
        "larger concentration"
    )


def local_batches(
    rng: np.random.Generator, client: np.ndarray, steps: int, batch_size: int
) -> np.ndarray:
    """Batches (steps, batch_size) of a client's indices, in epochs of new orders."""
    epochs = math.ceil(steps * batch_size / len(client))
    order = np.concatenate([rng.permutation(client) for _ in range(epochs)])
    return order[: steps * batch_size].reshape(steps, batch_size)


# ---- A round, the part to copy -------------------------------------------------------


def make_round(loss: Callable, optimizer: Optimizer) -> Callable:
    r"""Makes a jitted round of federated averaging.

    .. math::
        w \leftarrow \sum_i \frac{n_i}{\sum_j n_j} w_i

    with :math:`w_i` the parameters of client i after its steps from w, and
    :math:`n_i` the number of its examples.

    Args:
      loss: from `(params, *batch)` to a scalar.
      optimizer: of the clients, any Optax optimizer.

    Returns:
      `federated_round(params, sizes, batches)`, which returns the server's new
      parameters, from the sizes (clients,) and a tuple of arrays (clients, steps, ...).

    References:
      McMahan et al., `Communication-Efficient Learning of Deep Networks from
      Decentralized Data <https://arxiv.org/abs/1602.05629>`_, 2017, Algorithm 1
    """
    step = lb.make_step(loss, optimizer)

    def train_client(params, batches):
        def local_step(carry, batch):
            params, state, _ = step(*carry, *batch)
            return (params, state), None

        # The state begins and ends with the client's round: the server never sees it.
        start = params, optimizer.init(params)
        (params, _), _ = jax.lax.scan(local_step, start, batches)
        return params

    @jax.jit
    def federated_round(params, sizes, batches):
        # From here on, every client has parameters and a state of its own.
        clients = jax.vmap(train_client, in_axes=(None, 0))(params, batches)
        weights = sizes / sizes.sum()
        return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), clients)

    return federated_round


# ---- The end of it -------------------------------------------------------------------


class MLP(nn.Module):
    """One hidden layer; a convolution with weights for each client is slow on CPUs."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits (batch, classes) of images (batch, height, width, channels)."""
        x = nn.relu(nn.Dense(64)(images.reshape(len(images), -1)))
        return nn.Dense(self.classes)(x)


class Problem:
    """A dataset and its network.

    Attributes:
      train: normalised images (n, height, width, channels), and labels (n,).
      test: the same, on the device.
      model: the network.
      accuracy: percentage of the test images that parameters classify as labelled.
    """

    def __init__(self, dataset: data.Dataset):
        """Normalises the images."""

        def normalised(examples):
            images = (examples.images / np.float32(255) - dataset.mean) / dataset.std
            return images, examples.labels

        self.train = normalised(dataset.train)
        self.test = jax.device_put(normalised(dataset.test))
        self.model: Any = MLP(dataset.classes)  # Flax types `apply` as if of tuples
        self.accuracy = jax.jit(self._accuracy)

    def init(self, seed: int) -> Any:
        """Initial parameters."""
        return self.model.init(jax.random.key(seed), self.test[0][:1])

    def loss(self, params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        """Mean cross-entropy."""
        logits = self.model.apply(params, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    def _accuracy(self, params):
        images, labels = self.test
        return 100 * jnp.mean(self.model.apply(params, images).argmax(-1) == labels)


def train(
    config: Config,
    problem: Problem,
    federated_round: Callable,
    steps: int,
    clients: list[np.ndarray],
    seed: int,
) -> Iterator[tuple[Any, Any]]:
    """One run, which yields the server's model and its average after each round.

    Until the last quarter of the rounds begins, the average is the model itself.
    """
    images, labels = problem.train
    params = average = problem.init(seed)
    start = config.rounds - config.rounds // 4
    for i in range(config.rounds):
        rng = np.random.default_rng((seed, i))
        chosen = rng.choice(config.clients, config.sampled, replace=False)
        sizes = np.array([len(clients[c]) for c in chosen], np.float32)
        indices = np.stack(
            [local_batches(rng, clients[c], steps, config.batch_size) for c in chosen]
        )
        params = federated_round(params, sizes, (images[indices], labels[indices]))
        # The mean of n + 1 models is that of n, moved by 1 / (n + 1) to the new one.
        n = max(0, i - start)
        average = optax.incremental_update(params, average, 1 / (n + 1))
        yield params, average


def print_table(
    config: Config, curves: dict[str, np.ndarray], seconds: dict[str, float]
) -> None:
    """Prints each method's final accuracies, what it gains over SGD, and its cost."""
    print(
        f"\nDevice: {jax.devices()[0].device_kind}; n = {config.seeds} seeds. Test "
        "accuracy in % after the last round:\nmean ± standard deviation; with SWA, "
        "over SGD: mean difference on the same seed ±\nits standard error. Gradient "
        "evaluations are those of one run, seconds those of all n.\n"
    )
    print(
        f"{'Method':<14}  {'Server':>12}  {'With SWA':>12}  {'Over SGD':>12}  "
        "Gradients  Seconds"
    )
    gradients = config.rounds * config.sampled * config.gradients
    for name, curve in curves.items():
        server, average = curve[:, -1].T
        gain = average - curves["SGD"][:, -1, 1]
        print(
            f"{name:<14}  {server.mean():5.2f} ± {server.std(ddof=1):4.2f}  "
            f"{average.mean():5.2f} ± {average.std(ddof=1):4.2f}  "
            f"{gain.mean():+5.2f} ± {gain.std(ddof=1) / math.sqrt(len(gain)):4.2f}  "
            f"{gradients:9}  {seconds[name]:7.1f}"
        )


def plot(config: Config, curves: dict[str, np.ndarray]) -> None:
    """Saves the mean test errors over the rounds, and those of SWA, larger."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    rounds = np.arange(1, config.rounds + 1)
    late = rounds > config.rounds - config.rounds // 4
    for name, curve in curves.items():
        color = METHODS[name].color
        server, average = 100 - curve.mean(axis=0).T
        error = curve[..., 1].std(axis=0, ddof=1) / math.sqrt(config.seeds)
        left.plot(rounds, server, color=color, linewidth=1, label=name)
        right.plot(rounds[late], server[late], color=color, linewidth=1, alpha=0.5)
        right.plot(rounds[late], average[late], color=color, linewidth=2.5)
        band = (average - error)[late], (average + error)[late]
        right.fill_between(rounds[late], *band, color=color, alpha=0.12, linewidth=0)
    left.set_yscale("log")
    bottom, top = left.get_ylim()
    ticks = [t for t in (1, 2, 3, 4, 6, 10, 20, 30, 40, 60, 80) if bottom <= t <= top]
    left.set_yticks(ticks, [str(tick) for tick in ticks])
    left.minorticks_off()
    left.set_ylabel("test error (%), log scale")
    left.set_title("The server's model")
    left.legend(frameon=False)
    right.set_ylabel("test error (%)")
    right.set_title("Last quarter; bold: SWA, ± standard error")
    for axes in (left, right):
        axes.set_xlabel("round")
        axes.grid(alpha=0.3)
    figure.suptitle(
        f"Digits, Dirichlet({config.concentration:g}) over {config.clients} "
        f"clients, {config.sampled} in a round; mean over n = {config.seeds} seeds"
    )
    figure.savefig(config.output, dpi=150)


def main(arguments: list[str] | None = None) -> None:
    """Trains with every method on every seed, and reports."""
    config = tyro.cli(Config, args=arguments, prog="python -m examples.federated")
    try:
        check(config)
        compare(config)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")


def compare(config: Config) -> None:
    """Every method on every seed."""
    problem = Problem(data.load("digits"))
    splits = [
        split(
            problem.train[1],
            config.clients,
            config.concentration,
            config.batch_size,
            seed,
        )
        for seed in range(config.seeds)
    ]
    curves, seconds = {}, {}
    total = len(METHODS) * config.seeds * config.rounds
    with tqdm(total=total, unit=" rounds") as progress:
        for name, method in METHODS.items():
            progress.set_description(name)
            start = time.perf_counter()
            federated_round = make_round(problem.loss, method.optimizer())
            steps = config.gradients // method.gradients
            curves[name] = np.empty((config.seeds, config.rounds, 2))
            for seed, clients in enumerate(splits):
                run = train(config, problem, federated_round, steps, clients, seed)
                for i, models in enumerate(run):
                    curves[name][seed, i] = [problem.accuracy(m) for m in models]
                    progress.update()
            seconds[name] = time.perf_counter() - start
    print_table(config, curves, seconds)
    plot(config, curves)
    print(f"\nSaved the curves as {config.output}.")


if __name__ == "__main__":
    main()
