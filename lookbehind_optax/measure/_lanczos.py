"""Lanczos' algorithm with full reorthogonalisation."""

from collections.abc import Callable
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Accelerators would multiply float32 matrices in fewer bits.
_EXACT = jax.lax.Precision.HIGHEST


class Tridiagonal(NamedTuple):
    """A symmetric operator as its Krylov space sees it: A ≈ Q T Qᵀ.

    Attributes:
      matrix: T, tridiagonal, of shape (n, n).
      basis: the rows of Qᵀ, orthonormal, of shape (n, size).
      rest: norm of what is left beyond the space, by which errors are estimated.
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

    New vectors are made orthogonal to all before them, twice, since rounding would
    otherwise bring back converged eigenvectors again and again (Golub & Van Loan,
    Section 10.3). Where the space is exhausted, it continues from a random vector
    orthogonal to it, and so finds the other eigenvectors of a multiple eigenvalue.

    Args:
      operator: the product with a vector.
      start: the first vector, not zero, of shape (size,).
      steps: `range(n)`, or a progress bar over it.
      n: dimension of the space, at most `size`.
      key: of the random vectors.
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
    """The next vector, and its share in the image of the last."""

    def without(x):
        for _ in range(2):
            x = x - jnp.dot(
                jnp.dot(basis, x, precision=_EXACT), basis, precision=_EXACT
            )
        return x

    left = without(image)
    rest = jnp.linalg.norm(left)
    # Below this, it is rounding.
    exhausted = rest <= 10 * jnp.finfo(rest.dtype).eps * scale
    other = without(fresh)
    vector = jnp.where(exhausted, _unit(other), _unit(left))
    return vector, jnp.where(exhausted, jnp.zeros_like(rest), rest)


def _unit(x):
    """Of length 1; 0 if it is 0, where nothing is left beside the space."""
    norm = jnp.linalg.norm(x)
    return x / jnp.where(norm > 0, norm, jnp.ones_like(norm))
