"""Lanczos' algorithm with full reorthogonalization."""

from collections.abc import Callable
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# By default, accelerators multiply float32 matrices in fewer bits.
_EXACT = jax.lax.Precision.HIGHEST


class Tridiagonal(NamedTuple):
    """A symmetric operator as its Krylov space sees it: A ≈ Q T Qᵀ.

    Attributes:
      matrix: T, tridiagonal, of shape (n, n).
      basis: the rows of Qᵀ, orthonormal, of shape (n, size).
      rest: norm of the residual outside the space, used to estimate errors.
    """

    matrix: jax.Array
    basis: jax.Array
    rest: jax.Array


def lanczos(
    operator: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    steps: Iterable[int],
    n: int,
    key: jax.Array,
) -> Tridiagonal:
    """The operator's projection onto the space that it spans from `start` in n steps.

    Each new vector is made orthogonal to all previous ones, twice, since rounding would
    otherwise keep bringing back converged eigenvectors (Golub & Van Loan, Section
    10.3). If the space is exhausted, the algorithm continues from a random vector
    orthogonal to it, and so finds the other eigenvectors of a multiple eigenvalue.

    Args:
      operator: the product with a vector.
      start: the first vector, not zero, of shape (size,).
      steps: `range(n)`, or a progress bar over it.
      n: dimension of the space, at most `size`.
      key: the PRNG key of the random vectors.
    """
    basis = jnp.zeros((n, start.size), start.dtype)
    vector = _unit(start)
    rest = scale = jnp.zeros((), start.dtype)
    diagonal, beside = [], []
    for i in steps:
        basis = basis.at[i].set(vector)
        image = operator(vector)
        diagonal.append(jnp.vdot(vector, image, precision=_EXACT))
        scale = jnp.maximum(scale, jnp.linalg.norm(image))
        fresh = jax.random.normal(jax.random.fold_in(key, i), start.shape, start.dtype)
        vector, rest = _next(basis, image, fresh, scale)
        beside.append(rest)
    coupled = jnp.stack(beside[:-1]) if n > 1 else jnp.zeros(0, start.dtype)
    matrix = (
        jnp.diag(jnp.stack(diagonal)) + jnp.diag(coupled, 1) + jnp.diag(coupled, -1)
    )
    return Tridiagonal(matrix, basis, rest)


@jax.jit
def _next(basis, image, fresh, scale):
    """The next vector, and its coefficient in the image of the previous one."""

    def without(x):
        for _ in range(2):
            x = x - jnp.dot(
                jnp.dot(basis, x, precision=_EXACT), basis, precision=_EXACT
            )
        return x

    left = without(image)
    rest = jnp.linalg.norm(left)
    # A smaller residual is rounding.
    exhausted = rest <= 10 * jnp.finfo(rest.dtype).eps * scale
    other = without(fresh)
    vector = jnp.where(exhausted, _unit(other), _unit(left))
    return vector, jnp.where(exhausted, jnp.zeros_like(rest), rest)


def _unit(x):
    """Scales x to length 1; it stays 0 if nothing is left outside the space."""
    norm = jnp.linalg.norm(x)
    return x / jnp.where(norm > 0, norm, jnp.ones_like(norm))
