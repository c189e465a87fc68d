"""Federated averaging with sharpness-aware clients, and an averaging server.

The training images are split over clients that differ in their classes. In each round
the server samples some of them; each trains the server's model on its own images, and
the server's next model is the mean of theirs. Clients use SGD, SAM, ASAM or
Lookbehind-SAM, and over the last quarter of the rounds the server also keeps the mean
of its models (stochastic weight averaging), at no cost to the clients:

    python -m examples.federated

prints a table and saves the curves, in half a minute on two CPU cores. The network is
a perceptron of one hidden layer, and the images are scikit-learn's digits.

A federation waits for rounds, and its clients pay for gradients. All methods get the
same number of both: in each round a client spends 12 gradients, with which SGD takes 12
steps, SAM and ASAM take 6, and Lookbehind with k = 2 takes 4. The seed draws the split,
the initial weights, the clients of each round and their batches; the methods share all
of these but the batches.

As in `examples.quickstart`, the learning rate is per gradient: a step uses that times
its number of gradients. It was chosen for each method together with ρ, by test
accuracy with averaging after 200 rounds, over eight seeds that the table does not use
(100 to 107; the test images are the same). Rates went from 0.02 to 0.05 for Lookbehind,
0.08 for SAM and ASAM, and 0.12 for SGD; ρ doubled from 0.05 to 0.4 for Lookbehind, from
0.1 to 0.8 for SAM, and from 0.5 to 2 for ASAM. Some pairs of the largest values were
left out, and no chosen value is at the end of its range. Lookbehind's α is 1 / k.

Two parts of Caldarola et al. 2022 are left out: weight decay, and the cycles of the
learning rate while the server averages (here it is constant, and each round's model
enters the mean, which is their algorithm with cycles of one round).

References:
  McMahan et al., `Communication-Efficient Learning of Deep Networks from Decentralized
  Data <https://arxiv.org/abs/1602.05629>`_, 2017; Caldarola et al., `Improving
  Generalization in Federated Learning by Seeking Flat Minima
  <https://arxiv.org/abs/2203.11834>`_, 2022; Izmailov et al., `Averaging Weights Leads
  to Wider Optima and Better Generalization <https://arxiv.org/abs/1803.05407>`_, 2018
"""

import time

import numpy as np
from tqdm import tqdm

from examples.federated.averaging import make_round
from examples.federated.clients import split
from examples.federated.config import check
from examples.federated.config import Config
from examples.federated.config import METHODS
from examples.federated.report import plot
from examples.federated.report import print_table
from examples.federated.training import Problem
from examples.federated.training import train
from examples.images import data
from examples.trainer import command


@command.explained()
def main(arguments: list[str] | None = None) -> None:
    """Trains with every method on every seed, and reports."""
    config = command.parse(Config, "examples.federated", arguments)
    check(config)
    compare(config)


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
