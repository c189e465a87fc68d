"""C-MAML: learn a step on the new images that doesn't hurt what was learned before."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from examples.lifelong.replay import Batch
from examples.lifelong.replay import join


def make_meta_loss(
    loss_fn: Callable[[Any, Batch], jax.Array],
    learning_rate: float,
    steps: int,
    clip: float,
) -> Callable[[Any, Batch, Batch], jax.Array]:
    r"""The loss on new and old images after steps of SGD on the new ones alone.

    .. math::
        \theta_{i+1} = \theta_i - \eta \, [\nabla \ell(\theta_i, b_i)]_{-c}^{c}, \qquad
        L(\theta_0) = \ell(\theta_s, b \cup r)

    for the parts :math:`b_0, \ldots, b_{s-1}` of the batch b, and images r from the
    memory. Its gradient in :math:`\theta_0` goes through the inner steps, and so holds
    second derivatives of :math:`\ell`. This is C-MAML, Look-ahead MAML with constant
    learning rates; the outer step is that of any optimizer on L.

    Args:
      loss_fn: ℓ, from `(params, batch)` to the mean loss.
      learning_rate: η of the inner steps.
      steps: s, a divisor of the batch size.
      clip: c > 0; entries of the inner gradients beyond ±c are clipped, as in the
        authors' code. On a few images at a time, they can be large.

    Returns:
      L, from `(params, current, recalled)` to a scalar.

    References:
      Gupta et al., `Look-ahead Meta Learning for Continual Learning
      <https://arxiv.org/abs/2007.13904>`_, 2020, Section 4
    """

    def meta_loss(params, current, recalled):
        fast = params
        for i in range(steps):  # unrolled: convolutions in loops are slow on XLA:CPU
            part = jax.tree.map(lambda x, i=i: x[i::steps], current)
            grads = jax.grad(loss_fn)(fast, part)
            grads = jax.tree.map(lambda g: jnp.clip(g, -clip, clip), grads)
            fast = jax.tree.map(lambda f, g: f - learning_rate * g, fast, grads)
        return loss_fn(fast, join(current, recalled))

    return meta_loss
