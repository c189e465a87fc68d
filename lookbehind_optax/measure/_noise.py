"""How well a network withstands noise in its weights."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lookbehind_optax import _numbers
from lookbehind_optax import _params
from lookbehind_optax import _precision
from lookbehind_optax.measure import _batches
from lookbehind_optax.measure import _positive
from lookbehind_optax.measure import _programs


class WeightNoise(NamedTuple):
    """Values of noisy networks.

    Attributes:
      sigma: standard deviations of the noise, of shape (sigmas,).
      values: means over the dataset for each draw, of shape (sigmas, draws), or a tree
        of such arrays.
    """

    sigma: jax.Array
    values: Any

    @property
    def mean(self) -> Any:
        """Mean over the draws, of shape (sigmas,)."""
        return jax.tree.map(lambda x: jnp.mean(x, axis=1), self.values)

    @property
    def std(self) -> Any:
        """Standard deviation over the draws, of shape (sigmas,); NaN for one draw."""
        return jax.tree.map(lambda x: jnp.std(x, axis=1, ddof=1), self.values)


def weight_noise(
    values_fn: Callable[..., Any],
    params: Any,
    batches: _batches.Batches,
    sigma: _positive.Positive,
    *,
    draws: int = 10,
    key: jax.Array | None = None,
    statistics: Any = None,
    reestimate: Callable[..., Any] | None = None,
    training_batches: _batches.Batches | None = None,
    progress: _batches.Progress | None = None,
) -> WeightNoise:
    r"""Means over a dataset with weights θ · δ, δ ~ N(1, σ²) for each weight.

    All draws are evaluated together, by `vmap`. The statistics of BatchNorm depend on
    the weights: with `reestimate`, they are re-estimated for each draw.

    Args:
      values_fn: `values_fn(params, *batch)` returns the values of the examples of a
        batch, such as {"loss": ..., "accuracy": ...}, each of shape (examples,). With
        `reestimate`, it is called as `values_fn(params, statistics, *batch)`.
      params: θ, a tree of floating-point arrays; computed in float32 or wider.
      batches: the dataset, as for :func:`mean`; iterated over once for each σ.
      sigma: one standard deviation σ > 0 or several.
      draws: number of noisy networks for each σ.
      key: the PRNG key of the noise; `jax.random.key(0)` by default.
      statistics: the initial running statistics, those of training.
      reestimate: `reestimate(params, statistics, *batch)` returns the statistics
        after a batch, as a forward pass in training mode does. With a momentum of 0.9,
        0.5 % of the initial statistics remain after 50 batches.
      training_batches: batches for `reestimate`, iterated over once for each σ.
      progress: a progress bar, such as `tqdm.tqdm`.

    Returns:
      The means for each σ and draw, with their mean and standard deviation.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if σ isn't positive, `draws` is less than 1, there are no examples,
        there isn't one value for each, or `reestimate`, `statistics` and
        `training_batches` aren't either all given and not empty, or all omitted.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     return (w * x - x) ** 2
      >>> noise = measure.weight_noise(losses, jnp.ones(()), [jnp.ones(4)], [0.1, 0.2])
      >>> print(noise.values.shape, noise.mean.shape)
      (2, 10) (2,)

    References:
      Mordido et al., `Lookbehind-SAM <https://arxiv.org/abs/2307.16704>`_, 2024,
      Section 4.4
    """
    _params.check_params(params)
    params = _precision.widen(params)
    _numbers.check_count("draws", draws, minimum=1)
    sigmas = _positive.positive("sigma", sigma)
    _check_statistics(statistics, reestimate, training_batches)
    key = jax.random.key(0) if key is None else key
    values_fn = _programs.compiled(values_fn)
    before = 1 if reestimate is None else 2
    _batches.check_batches("batches", batches, values_fn, before)
    estimated = _estimator(reestimate, statistics, training_batches, draws)

    found = []
    for i, deviation in enumerate(_batches.show(sigmas, progress, "weight noise")):
        keys = jax.random.split(jax.random.fold_in(key, i), draws)
        noisy = _draw(keys, params, deviation)
        sums = functools.partial(values_fn.program(_sums), noisy, estimated(noisy))
        found.append(_batches.over(sums, batches))
    values = jax.tree.map(lambda *xs: jnp.stack(xs), *found)
    return WeightNoise(jnp.asarray(sigmas), values)


@jax.jit
def _draw(keys, params, sigma):
    """One noisy network for each key, stacked along a first axis."""
    leaves, structure = jax.tree.flatten(params)

    def one(key):
        def noisy(key, leaf):
            normal = jax.random.normal(key, leaf.shape, leaf.real.dtype)
            factor = 1 + jnp.asarray(sigma, normal.dtype) * normal
            return leaf * factor.astype(leaf.dtype)

        keys = jax.random.split(key, len(leaves))
        return structure.unflatten(map(noisy, keys, leaves))

    return jax.vmap(one)(keys)


def _sums(values_fn, noisy, statistics, batch, mask):
    def one(params, *statistics):
        return _batches.masked_sum(values_fn(params, *statistics, *batch), mask)

    return jax.vmap(one)(noisy, *statistics)


def _estimator(reestimate, statistics, batches, draws):
    """A function from noisy networks to their statistics: a tuple of one, or empty."""
    if reestimate is None:
        return lambda noisy: ()
    reestimate = _programs.compiled(reestimate)
    _batches.check_batches("training_batches", batches, reestimate, before=2)
    program = reestimate.program(_after)
    start = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (draws, *jnp.shape(x))), statistics
    )

    def estimated(noisy):
        own = None
        for batch in map(_batches.arguments, batches):
            own = program(noisy, start if own is None else own, batch)
        if own is None:
            raise ValueError("training_batches must hold at least one batch; got none.")
        return (own,)

    return estimated


def _after(reestimate, noisy, statistics, batch):
    return jax.vmap(lambda p, s: reestimate(p, s, *batch))(noisy, statistics)


def _check_statistics(statistics, reestimate, training_batches):
    if reestimate is None:
        if statistics is not None or training_batches is not None:
            raise ValueError(
                "statistics and training_batches are for reestimate, which is missing; "
                "pass all three or none."
            )
        return
    if not jax.tree.leaves(statistics):
        raise ValueError(
            "statistics must hold the running statistics to be re-estimated; got "
            f"{statistics!r}. A network without BatchNorm needs no reestimate."
        )
    if training_batches is None:
        raise ValueError("training_batches must be given with reestimate.")
