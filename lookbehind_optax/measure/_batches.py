"""Means over a dataset that comes in batches, the last of which may be smaller."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lookbehind_optax import _precision
from lookbehind_optax.measure import _programs

Batches = Iterable[Any]
Progress = Callable[..., Iterable[Any]]


def mean(
    values_fn: Callable[..., Any],
    params: Any,
    batches: Batches,
    *,
    progress: Progress | None = None,
) -> Any:
    """The mean over a dataset of a function's values for each example.

    Args:
      values_fn: `values_fn(params, *batch)` returns the values of the examples of a
        batch, such as their losses, in an array of shape (examples,), or a tree of
        such arrays.
      params: its first argument.
      batches: the dataset: a list of batches, a data loader, or anything else that can
        be iterated over again. Each batch is a tuple of trees of arrays, with examples
        along their first axes. Any batch may be smaller than the first: it is padded
        with copies of its first example, which don't count, so that the function is
        compiled only once.
      progress: a progress bar, such as `tqdm.tqdm`.

    Returns:
      The mean, or a tree of means; float32 or wider.

    Raises:
      TypeError: if `batches` is a single batch, or can be iterated over only once.
      ValueError: if there are no examples, or the values have the wrong shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> batches = [(jnp.arange(4.0),), (jnp.arange(4.0, 6.0),)]
      >>> print(measure.mean(lambda w, x: w * x, 2.0, batches))
      5.0
    """
    values_fn = _programs.compiled(values_fn)
    check_batches("batches", batches, values_fn)
    program = functools.partial(values_fn.program(sums), params)
    return over(program, batches, progress)


def sums(values_fn: Any, params: Any, batch: Any, mask: Any) -> Any:
    """Sums over the examples that count."""
    return masked_sum(values_fn(params, *batch), mask)


def over(
    sums_fn: Callable[[Any, np.ndarray], Any],
    batches: Batches,
    progress: Progress | None = None,
    desc: str | None = None,
) -> Any:
    """The mean over the examples, from `sums_fn(batch, mask)`."""
    return average(
        (sums_fn(batch, mask), mask)
        for batch, mask in padded(show(batches, progress, desc))
    )


def average(parts: Iterable[tuple[Any, Any]]) -> Any:
    """The mean over the examples, from sums over some and the masks that count them."""
    total, count = None, 0
    for part, mask in parts:
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
                f"{jnp.shape(mask)}; got {jnp.shape(values)}. (A mean over the "
                "batch would include the examples that pad the last one.)"
            )
        if not _precision.is_float(values):
            values = jnp.asarray(values, jnp.float32)
        return jnp.sum(_precision.widen(values), where=jnp.asarray(mask))

    return jax.tree.map(sum_, values)


def padded(batches: Batches, size: int = 0) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches padded to the size of the first, or `size`, and masks of what counts."""
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
    """Pads with copies, since the loss of an example of zeros may be infinite."""
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
    """A batch as a tuple of arguments; a single array is one argument."""
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def examples_in(batch: Any) -> int:
    """The length that all arrays of a batch share."""
    lengths = {len(x) if jnp.ndim(x) else None for x in jax.tree.leaves(batch)}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "the arrays of a batch must have the same number of examples, along their "
            f"first axes; got shapes {[jnp.shape(x) for x in jax.tree.leaves(batch)]}."
        )
    (length,) = lengths
    assert length is not None
    return length


def check_batches(
    name: str, batches: Any, fn: _programs.Compiled, before: int = 1
) -> None:
    """Refuses a single batch, and anything that can be iterated over only once.

    Args:
      name: name of the argument.
      batches: its value.
      fn: the function that the batches are for.
      before: number of its arguments before those of a batch.
    """
    if not hasattr(batches, "__iter__") or _is_one_batch(batches, fn, before):
        got = type(batches).__name__
        if isinstance(batches, (tuple, list)):
            got = f"the {got} of one batch, of shapes {jax.tree.map(np.shape, batches)}"
        raise TypeError(
            f"{name} must be a list of batches, or another iterable over them; got "
            f"{got}. Put a single batch into a list."
        )
    if isinstance(batches, Iterator):
        raise TypeError(
            f"{name} must be a list, a data loader, or anything else that can be "
            f"iterated over again; got {type(batches).__name__}, which works only once."
        )


def _is_one_batch(batches, fn, before):
    """Whether it is one batch for certain, such as (x, y) in place of [(x, y)].

    Two arrays may well be two batches of one argument each. They are not if the
    function takes two arguments but not one. Nor are they if their dtypes or ranks
    differ, because the batches of a dataset differ only in the lengths of their axes,
    as with sentences.
    """
    if not isinstance(batches, (tuple, list)):
        return isinstance(batches, (jax.Array, np.ndarray, Mapping))
    bare = [batch for batch in batches if not isinstance(batch, (tuple, list))]
    if len(batches) == 1 or not bare:
        return False
    kinds = {
        (x.ndim, jnp.result_type(x)) if isinstance(x, (jax.Array, np.ndarray)) else None
        for x in bare
    }
    whole, alone = fn.takes(before + len(batches)), fn.takes(before + 1)
    return len(kinds) > 1 or (whole and not alone)


def show(items: Iterable[Any], progress: Progress | None, desc: str | None) -> Any:
    """The items, with a progress bar if there is one."""
    return items if progress is None else progress(items, desc=desc)
