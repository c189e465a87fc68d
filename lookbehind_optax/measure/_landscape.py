"""The loss along a line and over a plane in the space of parameters."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from lookbehind_optax import _params
from lookbehind_optax import _precision
from lookbehind_optax.measure import _batches
from lookbehind_optax.measure import _programs


class Line(NamedTuple):
    """Values along a line.

    Attributes:
      t: positions, of shape (points,).
      values: means over the dataset, of shape (points,), or a tree of such arrays.
    """

    t: jax.Array
    values: Any

    @property
    def barrier(self) -> Any:
        """How far the values rise above the chord from the first to the last.

        For the loss between two solutions, this is the barrier of linear mode
        connectivity (Frankle et al. 2020); it is 0 if nothing rises above the chord.
        """
        share = (self.t - self.t[0]) / (self.t[-1] - self.t[0])

        def rise(values):
            chord = values[0] + share * (values[-1] - values[0])
            return jnp.max(values - chord)

        return jax.tree.map(rise, self.values)


class Plane(NamedTuple):
    """Values over a plane.

    Attributes:
      x: positions along the first axis, of shape (columns,).
      y: positions along the second axis, of shape (rows,).
      values: means over the dataset, of shape (rows, columns), or a tree of such
        arrays; as matplotlib's `contour` expects.
    """

    x: jax.Array
    y: jax.Array
    values: Any


def line(
    values_fn: Callable[..., Any],
    params: Any,
    axis: Any,
    t: jax.typing.ArrayLike,
    batches: _batches.Batches,
    *,
    progress: _batches.Progress | None = None,
) -> Line:
    """Means over a dataset at θ + t·axis, such as the loss between two solutions.

    Args:
      values_fn: `values_fn(params, *batch)` returns the values of the examples of a
        batch, such as their losses, of shape (examples,), or a tree of such arrays.
      params: θ, a tree of floating-point arrays; computed in float32 or wider.
      axis: a tree of the same shapes, such as :func:`towards` or :func:`random_axis`
        returns.
      t: positions, of shape (points,).
      batches: the dataset, as for :func:`mean`; iterated over once for each point.
      progress: a progress bar, such as `tqdm.tqdm`.

    Returns:
      The positions, and the means there.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if `axis` isn't like `params`, `t` isn't a vector, there are no
        examples, or there isn't one value for each.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     return x * (w**2 - 1) ** 2
      >>> here, there = jnp.array(-1.0), jnp.array(1.0)
      >>> t = jnp.linspace(0.0, 1.0, 3)
      >>> between = measure.line(losses, here, there - here, t, [jnp.ones(4)])
      >>> print(between.values, between.barrier)
      [0. 1. 0.] 1.0
    """
    _params.check_params(params)
    _params.check_like_params("axis", axis, params)
    values_fn = _programs.compiled(values_fn)
    places = _vector("t", t)
    found = [
        _batches.mean(values_fn, _moved(params, (axis,), (place,)), batches)
        for place in _batches.show(places, progress, "line")
    ]
    return Line(places, jax.tree.map(lambda *xs: jnp.stack(xs), *found))


def plane(
    values_fn: Callable[..., Any],
    params: Any,
    axes: tuple[Any, Any],
    x: jax.typing.ArrayLike,
    y: jax.typing.ArrayLike,
    batches: _batches.Batches,
    *,
    progress: _batches.Progress | None = None,
) -> Plane:
    """Means over a dataset at θ + x·axes[0] + y·axes[1].

    Args:
      values_fn: `values_fn(params, *batch)` returns the values of the examples of a
        batch, such as their losses, of shape (examples,), or a tree of such arrays.
      params: θ, a tree of floating-point arrays; computed in float32 or wider.
      axes: two trees of the same shapes, such as :func:`random_axis` and
        :func:`plane_through` return.
      x: positions along the first, of shape (columns,).
      y: positions along the second, of shape (rows,).
      batches: the dataset, as for :func:`mean`; iterated over once for each point.
      progress: a progress bar, such as `tqdm.tqdm`.

    Returns:
      The positions, and the means there.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if an axis isn't like `params`, x or y isn't a vector, there are no
        examples, or there isn't one value for each.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> def losses(w, x):
      ...     return x * (w[0] ** 2 + 3 * w[1])
      >>> axes = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
      >>> t, batches = jnp.arange(3.0), [jnp.ones(4)]
      >>> found = measure.plane(losses, jnp.zeros(2), axes, t, t[:2], batches)
      >>> print(found.values)
      [[0. 1. 4.]
       [3. 4. 7.]]
    """
    _params.check_params(params)
    for i, axis in enumerate(axes):
        _params.check_like_params(f"axes[{i}]", axis, params)
    values_fn = _programs.compiled(values_fn)
    columns, rows = _vector("x", x), _vector("y", y)
    grid = [(i, j) for j in rows for i in columns]
    found = [
        _batches.mean(values_fn, _moved(params, axes, place), batches)
        for place in _batches.show(grid, progress, "plane")
    ]
    shape = (len(rows), len(columns))
    values = jax.tree.map(lambda *xs: jnp.stack(xs).reshape(shape), *found)
    return Plane(columns, rows, values)


def towards(params: Any, other: Any) -> Any:
    """The axis along which t = 0 is one point and t = 1 the other.

    Args:
      params: the point at t = 0, a tree of floating-point arrays.
      other: the point at t = 1, of the same shapes.

    Returns:
      other - params, in float32 or wider.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> print(measure.towards(jnp.array([1.0, 2.0]), jnp.array([4.0, 2.0])))
      [3. 0.]
    """
    _params.check_like_params("other", other, params)
    return optax.tree.sub(_precision.widen(other), _precision.widen(params))


def random_axis(key: jax.Array, params: Any) -> Any:
    """A random axis, filter-normalized to compare networks of different scales.

    Each filter, that is, all weights into one output unit, is drawn from a normal
    distribution and scaled to the norm of the network's filter. Vectors and scalars
    (biases and the scales of normalization layers) are zero. The output units are along
    the last axis of an array, as in Flax's kernels.

    Args:
      key: the PRNG key of the draw.
      params: a tree of floating-point arrays.

    Returns:
      The axis, a tree of the same shapes.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> params = {"kernel": jnp.array([[3.0, 1.0], [4.0, 0.0]]), "bias": jnp.ones(2)}
      >>> axis = measure.random_axis(jax.random.key(0), params)
      >>> print(jnp.linalg.norm(axis["kernel"], axis=0).round(5), axis["bias"])
      [5. 1.] [0. 0.]

    References:
      Li et al., `Visualizing the Loss Landscape of Neural Nets
      <https://arxiv.org/abs/1712.09913>`_, 2018, Section 4
    """
    _params.check_params(params)
    leaves, structure = jax.tree.flatten(_precision.widen(params))

    def draw(key, leaf):
        if leaf.ndim < 2:
            return jnp.zeros_like(leaf)
        drawn = jax.random.normal(key, leaf.shape, leaf.dtype)
        inputs = tuple(range(leaf.ndim - 1))
        own, theirs = (
            jnp.sqrt(jnp.sum(jnp.abs(x) ** 2, axis=inputs, keepdims=True))
            for x in (leaf, drawn)
        )
        return drawn * (own / theirs).astype(leaf.dtype)

    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(map(draw, keys, leaves))


def plane_through(params: Any, second: Any, third: Any) -> tuple[tuple[Any, Any], Any]:
    """Orthonormal axes of the plane through three points, and the points' coordinates.

    Args:
      params: the first point, the origin of the plane.
      second: the second point, on the first axis.
      third: the third point.

    Returns:
      The two axes, for :func:`plane`; and the coordinates (x, y) of the three points,
      of shape (3, 2).

    Raises:
      ValueError: if the points don't have the same shapes, or are on one line.

    Example:
      >>> import jax.numpy as jnp
      >>> from lookbehind_optax import measure
      >>> a, b, c = jnp.array([0.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array([1.0, 3.0])
      >>> axes, points = measure.plane_through(a, b, c)
      >>> print(points)
      [[0. 0.]
       [2. 0.]
       [1. 3.]]

    References:
      Garipov et al., `Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs
      <https://arxiv.org/abs/1802.10026>`_, 2018, Appendix A.1
    """
    first, other = towards(params, second), towards(params, third)
    length = _precision.norm(first)
    u = optax.tree.scale(1 / length, first)
    along = optax.tree.vdot(u, other)
    across = optax.tree.sub(other, optax.tree.scale(along, u))
    height = _precision.norm(across)
    limit = 1e-6 * _precision.norm(other)
    if not (isinstance(height, jax.core.Tracer) or (length > 0 and height > limit)):
        raise ValueError("the three points must not be on one line.")
    v = optax.tree.scale(1 / height, across)
    return (u, v), jnp.array([[0, 0], [length, 0], [along, height]])


def _moved(params, axes, places):
    """θ moved along axes, in float32 or wider."""
    moved = _precision.widen(params)
    for axis, place in zip(axes, places, strict=True):
        moved = jax.tree.map(
            lambda p, a, t=place: p + jnp.asarray(t, p.dtype) * jnp.asarray(a, p.dtype),
            moved,
            axis,
        )
    return moved


def _vector(name, value):
    values = jnp.asarray(value)
    if values.ndim != 1 or not values.size or not _precision.is_float(values):
        raise ValueError(
            f"{name} must be a vector of floating-point numbers; got shape "
            f"{values.shape} of {values.dtype}."
        )
    return values
