"""Means over a dataset that comes in batches, the last of which may be smaller."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lookbehind_optax import _checks
from lookbehind_optax import _precision

Batches = Iterable[Any]
Numbers = jax.typing.ArrayLike | Sequence[float]
Progress = Callable[..., Iterable[Any]]


def mean(
    values_fn: Callable[..., Any],
    params: Any,
    batches: Batches,
    *,
    progress: Progress | None = None,
) -> Any:
    """The mean of what a function says of each example, over a dataset.

    Args:
      values_fn: `values_fn(params, *batch)` returns the values of the examples of a
        batch, such as their losses, in an array of shape (examples,), or a tree of
        such arrays.
      params: its first argument.
      batches: the dataset, as a list of batches, a data loader, or anything else that
        can be gone through again; each a tuple of trees of arrays, whose first axes
        are the examples. Any batch may be smaller than the first. The function sees it
        filled up with copies of its first example, which count for nothing, so that
        it is compiled once.
      progress: what shows how far it is, such as `tqdm.tqdm`.

    Returns:
      The mean, or a tree of means; float32 or wider.

    Raises:
      TypeError: if `batches` can be gone through only once.
      ValueError: if there are no examples, or the values have another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> batches = [(jnp.arange(4.0),), (jnp.arange(4.0, 6.0),)]
      >>> print(measure.mean(lambda w, x: w * x, 2.0, batches))
      5.0
    """
    _checks.check_function("values_fn", values_fn)
    return over(functools.partial(_sums, values_fn, params), batches, progress)


@functools.partial(jax.jit, static_argnums=0)
def _sums(values_fn, params, batch, mask):
    return masked_sum(values_fn(params, *batch), mask)


def over(
    sums_fn: Callable[[Any, np.ndarray], Any],
    batches: Batches,
    progress: Progress | None = None,
    desc: str | None = None,
) -> Any:
    """Sums of `sums_fn(batch, mask)`, over the number of examples."""
    check_batches(batches)
    total, count = None, 0
    for batch, mask in padded(show(batches, progress, desc)):
        part = sums_fn(batch, mask)
        total = part if total is None else jax.tree.map(jnp.add, total, part)
        count += int(np.sum(mask))
    if total is None:
        raise ValueError("batches must hold at least one example; got none.")
    return jax.tree.map(lambda x: x / count, total)


def masked_sum(values: Any, mask: jax.typing.ArrayLike) -> Any:
    """Sums of the values of the examples that count."""

    def sum_(values):
        if jnp.shape(values) != jnp.shape(mask):
            raise ValueError(
                "the function must return one value for each example, of shape "
                f"{jnp.shape(mask)}; got {jnp.shape(values)}. (Of a mean over the "
                "batch, the examples that fill up the last one couldn't be left out.)"
            )
        if not _precision.is_float(values):
            values = jnp.asarray(values, jnp.float32)
        return jnp.sum(_precision.widen(values), where=jnp.asarray(mask))

    return jax.tree.map(sum_, values)


def padded(batches: Batches, size: int = 0) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of the size of the first, or of `size`, and what of them counts."""
    for batch in batches:
        batch = arguments(batch)
        count = examples_in(batch)
        if count == 0:
            continue
        size = max(size, count)
        mask = np.arange(size) < count
        if count < size:
            batch = jax.tree.map(functools.partial(_fill, size), batch)
        yield batch, mask


def _fill(size, x):
    """Copies, since a loss of zeros may be infinite."""
    xp = jnp if isinstance(x, jax.Array) else np
    return xp.concatenate([x, xp.repeat(x[:1], size - len(x), axis=0)])


def cut(batches: Batches, size: int) -> Iterator[tuple[Any, ...]]:
    """The same examples in the same order, in batches of another size."""
    held: list[Any] = []
    for batch in batches:
        held.append(arguments(batch))
        if sum(map(examples_in, held)) >= size:
            whole = _join(held)
            count = examples_in(whole)
            for start in range(0, count - size + 1, size):
                yield _slice(whole, start, start + size)
            rest = count % size
            held = [_slice(whole, count - rest, count)] if rest else []
    if held and examples_in(whole := _join(held)):
        yield whole


def _join(batches):
    def join(*parts):
        xp = jnp if any(isinstance(part, jax.Array) for part in parts) else np
        return parts[0] if len(parts) == 1 else xp.concatenate(parts)

    return jax.tree.map(join, *batches)


def _slice(batch, start, stop):
    return jax.tree.map(lambda x: x[start:stop], batch)


def arguments(batch: Any) -> tuple[Any, ...]:
    """A batch as it is passed on; a single array is one argument."""
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def examples_in(batch: Any) -> int:
    """The length that all arrays of a batch have."""
    lengths = {len(x) if jnp.ndim(x) else None for x in jax.tree.leaves(batch)}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "the arrays of a batch must have as many examples each, along their first "
            f"axes; got shapes {[jnp.shape(x) for x in jax.tree.leaves(batch)]}."
        )
    (length,) = lengths
    assert length is not None
    return length


def check_batches(batches: Any) -> None:
    """What can be gone through again, and isn't a batch itself."""
    if isinstance(batches, (jax.Array, np.ndarray)) or not hasattr(batches, "__iter__"):
        raise TypeError(
            "batches must be a list of batches, or something else to go through; got "
            f"{type(batches).__name__}. Put a single batch into a list."
        )
    if isinstance(batches, Iterator):
        raise TypeError(
            "batches must be a list, a data loader, or anything else that can be gone "
            f"through again; got {type(batches).__name__}, which ends after once."
        )


def show(items: Iterable[Any], progress: Progress | None, desc: str | None) -> Any:
    """The items, with a bar if asked for."""
    return items if progress is None else progress(items, desc=desc)
