"""The clients' images: a split in which clients have different classes."""

import math

import numpy as np

SPLITS = 1000  # drawn until one leaves each client enough images


def split(
    labels: np.ndarray, clients: int, concentration: float, smallest: int, seed: int
) -> list[np.ndarray]:
    r"""Splits examples over clients, each class in its own proportions.

    .. math::
        (p_{c1}, \ldots, p_{cn}) \sim \mathrm{Dirichlet}(\beta, \ldots, \beta)

    where client i gets a share :math:`p_{ci}` of the examples of class c, up to
    rounding. Clients differ in size as well as in their classes. A split that leaves
    one of them too few examples is redrawn.

    Args:
      labels: class of each example, of shape (examples,).
      clients: their number n.
      concentration: β > 0; large for clients that are alike.
      smallest: minimum number of a client's examples.
      seed: the same seed gives the same split.

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
        f"concentration {concentration} gave: take a smaller --batch-size, fewer "
        "--clients or a larger --concentration"
    )


def local_batches(
    rng: np.random.Generator, client: np.ndarray, steps: int, batch_size: int
) -> np.ndarray:
    """Batches (steps, batch_size) of a client's indices, in a new order each epoch."""
    epochs = math.ceil(steps * batch_size / len(client))
    order = np.concatenate([rng.permutation(client) for _ in range(epochs)])
    return order[: steps * batch_size].reshape(steps, batch_size)
