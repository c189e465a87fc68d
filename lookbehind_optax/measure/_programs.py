"""Programs compiled for a function, which live as long as the object that wraps it."""

from collections.abc import Callable
import functools
import inspect
from typing import Any

import jax


class Compiled:
    """A function and the programs compiled for it.

    JAX's own cache would outlive a measurement: it keeps a function that is a static
    argument, and everything that the function read when it was traced.
    """

    def __init__(self, fn: Callable[..., Any]):
        """Wraps the function, and compiles nothing yet."""
        self._fn = fn
        self._programs: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function itself."""
        return self._fn(*args, **kwargs)

    def program(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """`kernel(fn, ...)` as a compiled function of its other arguments."""
        if kernel not in self._programs:
            self._programs[kernel] = jax.jit(functools.partial(kernel, self._fn))
        return self._programs[kernel]

    def takes(self, count: int) -> bool:
        """Whether the function takes this number of arguments, as far as is known."""
        try:
            # A decorator may pass its own arguments to the function that it wraps.
            signature = inspect.signature(self._fn, follow_wrapped=False)
        except ValueError:  # A builtin may have none.
            return True
        try:
            signature.bind(*range(count))
        except TypeError:
            return False
        return True


def compiled(fn: Callable[..., Any]) -> Compiled:
    """The function, compiled once for all measurements that it is passed to.

    A measurement compiles its function, and drops the programs when it returns, so that
    it always measures the current function. To measure repeatedly without recompiling,
    such as after every epoch, wrap the function once and pass the result instead. The
    programs live as long as the result.

    They freeze everything the function reads besides its arguments, such as a global or
    an attribute of `self`, at its value in the first measurement. Pass anything that
    changes as an argument, in `params` or in the batches.

    Args:
      fn: a `losses_fn`, `values_fn` or `reestimate`. For a `direction`, wrap its
        `update`: `direction._replace(update=measure.compiled(direction.update))`.

    Returns:
      The same function, with the programs compiled for it.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     print("compiling")
      ...     return x * w**2
      >>> losses = measure.compiled(losses)
      >>> for w in (1.0, 2.0, 3.0):
      ...     print(measure.mean(losses, w, [jnp.ones(4)]))
      compiling
      1.0
      4.0
      9.0
    """
    return fn if isinstance(fn, Compiled) else Compiled(fn)
