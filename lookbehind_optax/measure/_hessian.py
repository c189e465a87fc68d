"""The curvature of a loss, by products of its Hessian with vectors."""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import jax
from jax.flatten_util import ravel_pytree
import jax.numpy as jnp

from lookbehind_optax import _numbers
from lookbehind_optax import _params
from lookbehind_optax import _precision
from lookbehind_optax.measure import _batches
from lookbehind_optax.measure import _lanczos
from lookbehind_optax.measure import _programs

# By default, accelerators multiply float32 vectors in fewer bits.
_EXACT = jax.lax.Precision.HIGHEST


class Eigenpairs(NamedTuple):
    """The largest eigenvalues of a Hessian, in descending order.

    Attributes:
      values: λ, of shape (count,).
      vectors: the unit eigenvectors, a tree like the parameters, with a first axis of
        length `count`.
      errors: ‖H v − λ v‖ plus rounding, of shape (count,); some eigenvalue is within
        this distance of λ.
    """

    values: jax.Array
    vectors: Any
    errors: jax.Array


class Trace(NamedTuple):
    """An estimate of a Hessian's trace.

    Attributes:
      mean: mean of the draws.
      standard_error: standard error of the mean; NaN for a single draw.
      draws: vᵀ H v, of shape (draws,).
    """

    mean: jax.Array
    standard_error: jax.Array
    draws: jax.Array


class Spectrum(NamedTuple):
    """The density of a Hessian's eigenvalues, as weighted points.

    Attributes:
      nodes: positions of the points, of shape (draws, iterations).
      weights: masses of the points, of the same shape; those of each draw sum to 1.
    """

    nodes: jax.Array
    weights: jax.Array

    def density(self, at: jax.Array, width: float) -> jax.Array:
        """The density at given places, with the points broadened to normal densities.

        Args:
          at: the places, of shape (places,).
          width: standard deviation of the normal densities.

        Returns:
          The density, a mean over the draws, of shape (places,).
        """
        far = (jnp.asarray(at)[:, None, None] - self.nodes[None]) / width
        normal = jnp.exp(-(far**2) / 2) / (width * (2 * jnp.pi) ** 0.5)
        return jnp.sum(normal * self.weights[None], axis=(1, 2)) / len(self.nodes)


def hessian_vector_product(
    losses_fn: Callable[..., jax.Array],
    params: Any,
    vector: Any,
    batches: _batches.Batches,
) -> Any:
    """H v, with the Hessian H of the mean loss over a dataset.

    This is a forward-mode derivative of the gradient, at about three times its cost.

    Args:
      losses_fn: `losses_fn(params, *batch)` returns the losses of the examples of a
        batch, of shape (examples,).
      params: the point, a tree of real arrays; computed in float32 or wider.
      vector: v, a tree of the same shapes.
      batches: the dataset, as for :func:`mean`.

    Returns:
      H v, a tree of the same shapes, in float32 or wider.

    Raises:
      TypeError: if an argument is of the wrong kind, or a parameter complex.
      ValueError: if there are no examples, or there isn't one loss for each.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     return x * w[0] ** 2 * w[1]
      >>> w, v = jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])
      >>> print(measure.hessian_vector_product(losses, w, v, [jnp.ones(4)]))
      [6. 2.]
    """
    params = _real(params)
    vector = jax.tree.map(lambda v, p: jnp.asarray(v, p.dtype), vector, params)
    return _product(losses_fn, params, batches)(vector)


def hessian_eigenvalues(
    losses_fn: Callable[..., jax.Array],
    params: Any,
    batches: _batches.Batches,
    count: int = 1,
    *,
    iterations: int = 40,
    key: jax.Array | None = None,
    progress: _batches.Progress | None = None,
) -> Eigenpairs:
    """The largest eigenvalues of the Hessian of the mean loss, and their vectors.

    This uses Lanczos' algorithm with full reorthogonalization, from a random vector. It
    keeps `iterations` vectors of the size of the parameters, and each iteration goes
    through the dataset once. If `errors` are too large, increase `iterations`.

    Args:
      losses_fn: `losses_fn(params, *batch)` returns the losses of the examples of a
        batch, of shape (examples,).
      params: the point, a tree of real arrays; computed in float32 or wider.
      batches: the dataset, as for :func:`mean`.
      count: number of eigenvalues, at most `iterations`.
      iterations: number of iterations, limited to the number of parameters.
      key: the PRNG key of the random vector; `jax.random.key(0)` by default.
      progress: a progress bar, such as `tqdm.tqdm`.

    Returns:
      Values in descending order, vectors, and bounds on their errors.

    Raises:
      TypeError: if an argument is of the wrong kind, or a parameter complex.
      ValueError: if there are fewer parameters or iterations than `count`, if there
        are no examples, or if there isn't one loss for each.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     return x * (3 * w[0] ** 2 + w[1] ** 2 - w[2] ** 2)
      >>> w, batches = jnp.ones(3), [jnp.ones(4)]
      >>> top = measure.hessian_eigenvalues(losses, w, batches, count=2)
      >>> print([f"{value:.3f}" for value in top.values])
      ['6.000', '2.000']

    References:
      Ghorbani et al., `An Investigation into Neural Net Optimization via Hessian
      Eigenvalue Density <https://arxiv.org/abs/1901.10159>`_, 2019
    """
    _numbers.check_count("count", count, minimum=1)
    _numbers.check_count("iterations", iterations, minimum=1)
    hessian = _matrix(losses_fn, params, batches)
    n = min(iterations, hessian.size)
    if count > n:
        raise ValueError(
            f"count must be at most the {n} iterations and the {hessian.size} "
            f"parameters; got {count}."
        )
    key = jax.random.key(0) if key is None else key
    start = jax.random.normal(key, (hessian.size,), hessian.dtype)
    steps = _batches.show(range(n), progress, "eigenvalues")
    found = _lanczos.lanczos(hessian.times, start, steps, n, key)
    values, vectors = jnp.linalg.eigh(found.matrix)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    rounding = jnp.finfo(values.dtype).eps * jnp.linalg.norm(found.matrix)
    ritz = jnp.dot(vectors.T, found.basis, precision=_EXACT)
    return Eigenpairs(
        values=values,
        vectors=jax.vmap(hessian.unravel)(ritz),
        errors=found.rest * jnp.abs(vectors[-1]) + rounding,
    )


def hessian_trace(
    losses_fn: Callable[..., jax.Array],
    params: Any,
    batches: _batches.Batches,
    *,
    draws: int = 100,
    key: jax.Array | None = None,
    progress: _batches.Progress | None = None,
) -> Trace:
    r"""An estimate of the trace of the Hessian of the mean loss.

    .. math::
        \operatorname{tr} H = \mathbb{E}\, v^\top H v

    over vectors v of random signs (Hutchinson 1989). Each draw goes through the dataset
    once.

    Args:
      losses_fn: `losses_fn(params, *batch)` returns the losses of the examples of a
        batch, of shape (examples,).
      params: the point, a tree of real arrays; computed in float32 or wider.
      batches: the dataset, as for :func:`mean`.
      draws: number of random vectors.
      key: the PRNG key of the draws; `jax.random.key(0)` by default.
      progress: a progress bar, such as `tqdm.tqdm`.

    Returns:
      The mean of the draws, with its standard error.

    Raises:
      TypeError: if an argument is of the wrong kind, or a parameter complex.
      ValueError: if there are no examples, or there isn't one loss for each.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     return x * (3 * w[0] ** 2 + w[1] ** 2)
      >>> trace = measure.hessian_trace(losses, jnp.ones(2), [jnp.ones(4)], draws=5)
      >>> print(trace.mean, trace.standard_error)
      8.0 0.0

    References:
      Hutchinson, `A Stochastic Estimator of the Trace of the Influence Matrix for
      Laplacian Smoothing Splines <https://doi.org/10.1080/03610918908812806>`_, 1989
    """
    _numbers.check_count("draws", draws, minimum=1)
    hessian = _matrix(losses_fn, params, batches)
    key = jax.random.key(0) if key is None else key
    found = []
    for i in _batches.show(range(draws), progress, "trace"):
        own = jax.random.fold_in(key, i)
        signs = jax.random.rademacher(own, (hessian.size,), hessian.dtype)
        found.append(jnp.vdot(signs, hessian.times(signs), precision=_EXACT))
    samples = jnp.stack(found)
    spread = (
        jnp.std(samples, ddof=1) if draws > 1 else jnp.full_like(samples[0], jnp.nan)
    )
    return Trace(jnp.mean(samples), spread / draws**0.5, samples)


def hessian_spectrum(
    losses_fn: Callable[..., jax.Array],
    params: Any,
    batches: _batches.Batches,
    *,
    draws: int = 3,
    iterations: int = 80,
    key: jax.Array | None = None,
    progress: _batches.Progress | None = None,
) -> Spectrum:
    """An estimate of the eigenvalue density of the Hessian of the mean loss.

    This uses stochastic Lanczos quadrature: from a random vector, Lanczos' algorithm
    gives points and weights that, on average over the vectors, integrate polynomials of
    degree up to 2 `iterations` - 1 as the density does. Each iteration of each draw
    goes through the dataset once.

    Args:
      losses_fn: `losses_fn(params, *batch)` returns the losses of the examples of a
        batch, of shape (examples,).
      params: the point, a tree of real arrays; computed in float32 or wider.
      batches: the dataset, as for :func:`mean`.
      draws: number of random vectors.
      iterations: number of iterations, limited to the number of parameters.
      key: the PRNG key of the draws; `jax.random.key(0)` by default.
      progress: a progress bar, such as `tqdm.tqdm`.

    Returns:
      Points and weights, with a method `density` that broadens them.

    Raises:
      TypeError: if an argument is of the wrong kind, or a parameter complex.
      ValueError: if there are no examples, or there isn't one loss for each.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     return x * (3 * w[0] ** 2 - w[1] ** 2)
      >>> w, batches = jnp.ones(2), [jnp.ones(4)]
      >>> spectrum = measure.hessian_spectrum(losses, w, batches, draws=1)
      >>> print([f"{node:.3f}" for node in spectrum.nodes[0]])
      ['-2.000', '6.000']

    References:
      Ghorbani et al., `An Investigation into Neural Net Optimization via Hessian
      Eigenvalue Density <https://arxiv.org/abs/1901.10159>`_, 2019
    """
    _numbers.check_count("draws", draws, minimum=1)
    _numbers.check_count("iterations", iterations, minimum=1)
    hessian = _matrix(losses_fn, params, batches)
    n = min(iterations, hessian.size)
    key = jax.random.key(0) if key is None else key
    nodes, weights = [], []
    for draw in range(draws):
        own = jax.random.fold_in(key, draw)
        start = jax.random.normal(own, (hessian.size,), hessian.dtype)
        steps = _batches.show(range(n), progress, f"spectrum {draw + 1}/{draws}")
        found = _lanczos.lanczos(hessian.times, start, steps, n, own)
        values, vectors = jnp.linalg.eigh(found.matrix)
        nodes.append(values)
        weights.append(vectors[0] ** 2)
    return Spectrum(jnp.stack(nodes), jnp.stack(weights))


class _Matrix(NamedTuple):
    """A Hessian as a matrix.

    Attributes:
      times: returns its product with a flat vector.
      unravel: turns a flat vector into a tree like the parameters.
      size: number of parameters.
      dtype: dtype of the vectors.
    """

    times: Callable[[jax.Array], jax.Array]
    unravel: Callable[[jax.Array], Any]
    size: int
    dtype: Any


def _matrix(losses_fn, params, batches):
    params = _real(params)
    flat, unravel = ravel_pytree(params)
    if not flat.size:
        raise ValueError("params must hold at least one parameter; got none.")
    product = _product(losses_fn, params, batches)

    def times(vector):
        return ravel_pytree(product(unravel(vector)))[0]

    return _Matrix(times, unravel, flat.size, flat.dtype)


def _product(losses_fn, params, batches):
    """A function from a vector, a tree like the parameters, to H v."""
    losses_fn = _programs.compiled(losses_fn)
    _batches.check_batches("batches", batches, losses_fn)
    program = functools.partial(losses_fn.program(_sums), params)

    def product(vector):
        return _batches.over(functools.partial(program, vector), batches)

    return product


def _sums(losses_fn, params, vector, batch, mask):
    def loss(params):
        return _batches.sums(losses_fn, params, batch, mask)

    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def _real(params):
    """The parameters in float32 or wider."""
    _params.check_params(params)
    if any(map(jnp.iscomplexobj, jax.tree.leaves(params))):
        raise TypeError(
            "params must be real, because the Hessian is defined for real parameters. "
            "Split complex ones into their real and imaginary parts."
        )
    return _precision.widen(params)
