"""How much higher the loss is within a small distance."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lookbehind_optax import _numbers
from lookbehind_optax import _params
from lookbehind_optax import _precision
from lookbehind_optax.measure import _ascent
from lookbehind_optax.measure import _batches
from lookbehind_optax.measure import _positive
from lookbehind_optax.measure import _programs


class Sharpness(NamedTuple):
    """The loss around a point.

    Attributes:
      rho: the radii, of shape (radii,).
      loss: L, at the point.
      perturbed_loss: the loss at the end of the ascent for each radius, averaged over
        the groups, of shape (radii,).
    """

    rho: jax.Array
    loss: jax.Array
    perturbed_loss: jax.Array

    @property
    def sharpness(self) -> jax.Array:
        """Perturbed loss minus loss, of shape (radii,)."""
        return self.perturbed_loss - self.loss


def sharpness(
    losses_fn: Callable[..., jax.Array],
    params: Any,
    batches: _batches.Batches,
    rho: _positive.Positive,
    *,
    m: int | None = None,
    steps: int = 1,
    direction: optax.GradientTransformation | None = None,
    progress: _batches.Progress | None = None,
) -> Sharpness:
    r"""The m-sharpness of a loss, within radii ρ.

    .. math::
        \frac{1}{|G|} \sum_{g \in G} \max_{\lVert \epsilon \rVert \le \rho}
        L_g(\theta + \epsilon) - L_g(\theta)

    over the groups G of m consecutive examples of the dataset, each with its own
    perturbation; a smaller last group is weighted by its size. As in SAM, the maximum
    is estimated from below, by `steps` steps of length ρ / steps uphill, along
    `direction`. With `asam_direction(eta=0.0)`, ‖ε‖ is ‖ε / abs(θ)‖ for weights, and
    the sharpness is adaptive sharpness; biases keep their scale unless
    `weights=lambda path, leaf: True`.

    Args:
      losses_fn: `losses_fn(params, *batch)` returns the losses of the examples of a
        batch, of shape (examples,).
      params: θ, a tree of floating-point arrays; computed in float32 or wider.
      batches: the dataset, as for :func:`mean`; iterated over once.
      rho: one radius ρ > 0 or several, in units of the parameters.
      m: size of the groups; by default, each batch is a group. It may be larger than
        the batches, which are then joined in memory, but not on the device at once.
      steps: number of ascent steps. The first gradient serves all radii.
      direction: the direction of ascent; `sam_direction()` by default. A random one
        has other draws for each group, the same for all radii.
      progress: a progress bar, such as `tqdm.tqdm`.

    Returns:
      The loss, and the perturbed loss for each radius.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a radius isn't positive, m or `steps` is less than 1, there are no
        examples, or there isn't one loss for each example.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     return x * jnp.sum(w**2)
      >>> w = jnp.array([3.0, 4.0])
      >>> result = measure.sharpness(losses, w, [jnp.ones(8)], rho=[1.0, 5.0])
      >>> print(result.loss, result.perturbed_loss, result.sharpness)
      25.0 [ 36. 100.] [11. 75.]

    References:
      Foret et al., `Sharpness-Aware Minimization
      <https://arxiv.org/abs/2010.01412>`_, 2021, Section 4.1; Mordido et al.,
      `Lookbehind-SAM <https://arxiv.org/abs/2307.16704>`_, 2024, Equations 5 and 6
    """
    losses_fn = _programs.compiled(losses_fn)
    direction = _ascent.along(direction)
    _params.check_params(params)
    params = _precision.widen(params)
    _numbers.check_count("steps", steps, minimum=1)
    if m is not None:
        _numbers.check_count("m", m, minimum=1)
    radii = _positive.positive("rho", rho)
    _batches.check_batches("batches", batches, losses_fn)
    loss = _over_chunks(losses_fn.program(_batches.sums))
    gradient = _over_chunks(losses_fn.program(_ascent.gradient))
    step = _programs.compiled(direction.update).program(_ascent.step)

    def climbed(state, grads, chunks, radius):
        """The end of the ascent whose first gradient is `grads`."""
        ahead, state = step(state, params, grads, radius / steps)
        for _ in range(steps - 1):
            _, grads = gradient(ahead, chunks)
            ahead, state = step(state, ahead, grads, radius / steps)
        return state, loss(ahead, chunks)

    def sums(groups):
        """Sums over each group, of the loss and of that at the end of each ascent."""
        state = direction.init(params)
        for chunks in groups:
            value, grads = gradient(params, chunks)
            ends = [climbed(state, grads, chunks, radius) for radius in radii]
            state = ends[-1][0]
            highest = jnp.stack([end for _, end in ends])
            yield (value, highest), [mask for _, mask in chunks]

    shown = _batches.show(batches, progress, "sharpness")
    here, perturbed = _batches.average(sums(_groups(shown, m)))
    return Sharpness(jnp.asarray(radii), loss=here, perturbed_loss=perturbed)


def _over_chunks(program):
    """Sums over the chunks of a group. A direction ignores the gradient's length."""

    def sums(params, chunks):
        parts = (program(params, *chunk) for chunk in chunks)
        return functools.reduce(optax.tree.add, parts)

    return sums


def _groups(batches, m):
    """Each group, in chunks of a size that fits the device."""
    size = None
    if m is None:
        for batch in batches:
            batch = _batches.arguments(batch)
            if _batches.examples_in(batch):
                size = max(size or 0, _batches.examples_in(batch))
                yield list(_batches.padded([batch], size))
        return
    sizes = []
    for group in _batches.cut(_noting_sizes(batches, sizes), m):
        # As large as the first batch, but not larger than a group.
        size = size or min(m, sizes[0])
        yield list(_batches.padded(_batches.cut([group], size), size))


def _noting_sizes(batches, sizes):
    for batch in batches:
        if size := _batches.examples_in(batch):
            sizes.append(size)
            yield batch
