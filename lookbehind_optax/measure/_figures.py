"""Figures of measurements, in the form of the paper's; they need matplotlib."""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lookbehind_optax.measure._climb import Climb
from lookbehind_optax.measure._hessian import Spectrum
from lookbehind_optax.measure._landscape import Line
from lookbehind_optax.measure._landscape import Plane
from lookbehind_optax.measure._noise import WeightNoise
from lookbehind_optax.measure._sharpness import Sharpness

# Okabe and Ito's palette, which color-blind readers can tell apart, darkest first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX"
DASHES = ("-", "--", ":", "-.")
# The first of these words that a name contains says which method it is.
METHODS = {
    "lookbehind": "#009E73",
    "lookahead": "#E69F00",
    "multistep": "#D55E00",
    "random": "#999999",
    **dict.fromkeys(("gsam", "wsam", "friendly"), "#CC79A7"),
    "asam": "#56B4E9",
    "sam": "#0072B2",
    **dict.fromkeys(("sgd", "adam", "adamw", "base", "maml"), "#000000"),
}


def styles(names: Iterable[str]) -> list[dict[str, Any]]:
    """Styles of curves, for figures beside those here: a color means a method.

    A name means the method that it contains, as "Lookbehind-SAM, k = 5" and
    "lookbehind_sam" do. It has that method's color in every figure. A name without a
    method gets a color that no method in the figure uses, while any are left. Each
    further curve of a color is dashed in another way, and markers differ.

    Args:
      names: of the curves of one figure.

    Returns:
      keyword arguments of matplotlib's `plot` for each.

    Example:
      >>> from lookbehind_optax import measure
      >>> for style in measure.styles(["SAM", "Lookbehind-SAM", "SAM, late"]):
      ...     print(style["color"], style["linestyle"], style["marker"])
      #0072B2 - o
      #009E73 - s
      #0072B2 -- D
    """
    methods = [_method_color(name) for name in names]
    free = itertools.cycle([c for c in COLORS if c not in methods] or COLORS)
    drawn: Counter[str] = Counter()
    found = []
    for i, color in enumerate(method or next(free) for method in methods):
        found.append(
            {
                "color": color,
                "linestyle": DASHES[drawn[color] % len(DASHES)],
                "marker": MARKERS[(i + i // len(MARKERS)) % len(MARKERS)],
                "markersize": 4,
            }
        )
        drawn[color] += 1
    return found


def _method_color(name: str) -> str | None:
    words = re.findall("[a-z]+", name.lower())
    return next((color for word, color in METHODS.items() if word in words), None)


def plot_trade_off(results: Mapping[str, Mapping[float, Sharpness]]) -> Any:
    """Loss against sharpness, a curve for each method, a point for each training ρ.

    The points of a curve grow with ρ, and the last one has its number.

    Args:
      results: for each method's name, a mapping from each training ρ to the measured
        sharpness of the trained network. If several radii were measured, the first is
        drawn.

    Returns:
      A matplotlib figure, in the form of the paper's Figure 1.

    Raises:
      ModuleNotFoundError: without matplotlib.
    """
    figure, axes = _figure()
    for style, name, points in _curves(results):
        rhos = sorted(points)
        x = [float(points[rho].sharpness[0]) for rho in rhos]
        y = [float(points[rho].loss) for rho in rhos]
        axes.plot(x, y, label=name, **style)
        areas = (4 + 1.5 * np.arange(len(rhos))) ** 2
        look = {name: style[name] for name in ("color", "marker")}
        axes.scatter(x, y, s=areas, zorder=2, **look)
        axes.annotate(  # a number at each would hide the next
            f"ρ = {rhos[-1]:g}",
            (x[-1], y[-1]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            color=style["color"],
            fontsize=8,
        )
    axes.margins(0.1)  # for the numbers
    _finish(axes, "sharpness", "loss", legend=True)
    return figure


def plot_sharpness(results: Mapping[str, Sharpness]) -> Any:
    """Sharpness over the radii, a curve for each method.

    Args:
      results: the measurements, by the methods' names.

    Returns:
      A matplotlib figure, in the form of the paper's Figure 3. Sharpness is on a
      logarithmic scale, or on a linear one if some of it isn't positive.

    Raises:
      ModuleNotFoundError: without matplotlib.
    """
    figure, axes = _figure()
    for style, name, result in _curves(results):
        axes.plot(
            np.asarray(result.rho), np.asarray(result.sharpness), label=name, **style
        )
    axes.set_xscale("log")
    if all(np.all(result.sharpness > 0) for result in results.values()):
        axes.set_yscale("log")
    radii = sorted({float(rho) for result in results.values() for rho in result.rho})
    if len(radii) <= 10:
        axes.set_xticks(radii, [f"{rho:.3g}" for rho in radii])
        axes.minorticks_off()
    _finish(axes, "radius ρ", "sharpness", legend=True)
    return figure


def plot_noise(
    results: Mapping[str, WeightNoise], of: str | None = None, label: str = "value"
) -> Any:
    """Values with noisy weights over σ: mean and standard deviation over the draws.

    Args:
      results: the measurements, by the methods' names.
      of: which of the values to draw, if they are a dictionary.
      label: label of the vertical axis.

    Returns:
      A matplotlib figure, in the form of the paper's Figure 4.

    Raises:
      ModuleNotFoundError: without matplotlib.
    """
    figure, axes = _figure()
    for style, name, result in _curves(results):
        sigma = np.asarray(result.sigma)
        mean, std = (
            np.asarray(value if of is None else value[of])
            for value in (result.mean, result.std)
        )
        axes.plot(sigma, mean, label=name, **style)
        axes.fill_between(
            sigma, mean - std, mean + std, color=style["color"], alpha=0.15
        )
    _finish(axes, "standard deviation σ of the noise", label, legend=True)
    return figure


def plot_alpha(results: Mapping[str, jax.typing.ArrayLike]) -> Any:
    """α over training, and the alignment of the gradients behind it.

    An adaptive α is (cos θ + 1) / 2, where θ is the angle between the first update of
    the fast weights and the sum of all their updates. The right-hand scale is cos θ.

    Args:
      results: for each run's name, α at each step, or its means over epochs, of shape
        (times,). `StepOutput` and the trainer's log contain α.

    Returns:
      A matplotlib figure, in the form of the paper's Figure 10.

    Raises:
      ModuleNotFoundError: without matplotlib.
    """
    figure, axes = _figure()
    for style, name, alpha in _curves(results):
        values = np.asarray(alpha)
        style["marker"] = style["marker"] if len(values) <= 40 else None
        axes.plot(np.arange(1, len(values) + 1), values, label=name, **style)
    axes.set_ylim(-0.02, 1.05)
    scale = axes.secondary_yaxis(
        "right", functions=(lambda alpha: 2 * alpha - 1, lambda cos: (cos + 1) / 2)
    )
    scale.set_ylabel("cos θ, if α is adaptive")
    _finish(axes, "steps or epochs", "α", legend=True)
    return figure


def plot_climb(results: Mapping[str, Climb]) -> Any:
    """Losses and alignment of the gradients along ascents.

    Args:
      results: the measurements, by the methods' names.

    Returns:
      A matplotlib figure.

    Raises:
      ModuleNotFoundError: without matplotlib.
    """
    figure, (left, right) = _figure(2)
    for style, name, climb in _curves(results):
        steps = np.arange(len(climb.losses))
        left.plot(steps, np.asarray(climb.losses), label=name, **style)
        right.plot(steps, np.asarray(climb.cosines), label=name, **style)
    for axes, label in ((left, "loss"), (right, "cosine with the first gradient")):
        axes.xaxis.get_major_locator().set_params(integer=True)
        _finish(axes, "ascent steps", label, legend=axes is left)
    return figure


def plot_line(
    results: Mapping[str, Line], of: str | None = None, label: str = "loss"
) -> Any:
    """Values along lines.

    Args:
      results: the measurements, by the lines' names.
      of: which of the values to draw, if they are a dictionary.
      label: label of the vertical axis.

    Returns:
      A matplotlib figure.

    Raises:
      ModuleNotFoundError: without matplotlib.
    """
    figure, axes = _figure()
    for style, name, line in _curves(results):
        values = line.values if of is None else line.values[of]
        style["marker"] = None
        axes.plot(np.asarray(line.t), np.asarray(values), label=name, **style)
    _finish(axes, "t", label, legend=True)
    return figure


def plot_plane(
    plane: Plane,
    points: Mapping[str, jax.typing.ArrayLike] | None = None,
    of: str | None = None,
    label: str = "loss",
) -> Any:
    """Values over a plane, as contours.

    Args:
      plane: the measured plane.
      points: coordinates (x, y) of points to mark, by their names.
      of: which of the values to draw, if they are a dictionary.
      label: label of the values.

    Returns:
      A matplotlib figure.

    Raises:
      ModuleNotFoundError: without matplotlib.
    """
    figure, axes = _figure()
    values = np.asarray(plane.values if of is None else plane.values[of])
    x, y = np.asarray(plane.x), np.asarray(plane.y)
    filled = axes.contourf(x, y, values, levels=20, cmap="cividis")
    figure.colorbar(filled, label=label)
    markers = itertools.cycle(MARKERS)
    for marker, (name, place) in zip(markers, (points or {}).items(), strict=False):
        axes.plot(
            *np.asarray(place)[:, None],
            marker,
            color="white",
            markeredgecolor="black",
            label=name,
        )
    axes.set_aspect("equal")
    _finish(axes, "x", "y", legend=bool(points))
    return figure


def plot_spectrum(results: Mapping[str, Spectrum], width: float) -> Any:
    """The densities of Hessians' eigenvalues, on a logarithmic scale.

    Args:
      results: the measurements, by the methods' names.
      width: standard deviation of the normal densities to which each point is
        broadened.

    Returns:
      A matplotlib figure.

    Raises:
      ModuleNotFoundError: without matplotlib.
    """
    figure, axes = _figure()
    nodes = np.concatenate([np.ravel(result.nodes) for result in results.values()])
    at = np.linspace(nodes.min() - 5 * width, nodes.max() + 5 * width, 1000)
    for style, name, spectrum in _curves(results):
        style["marker"] = None
        density = np.asarray(spectrum.density(jnp.asarray(at), width))
        axes.plot(at, density, label=name, **style)
    axes.set_yscale("log")
    # Anything thousands of times rarer than one eigenvalue in a million is cut off.
    axes.set_ylim(bottom=1e-9 / width)
    _finish(axes, "eigenvalue", "density", legend=True)
    return figure


def _figure(columns: int = 1) -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "figures need matplotlib: pip install 'lookbehind-optax[plots]'"
        ) from error
    figure = Figure(figsize=(5.5 * columns, 4), layout="constrained")
    return figure, figure.subplots(1, columns)


def _curves(results: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """For each result the style of its curve, its name and itself."""
    if not isinstance(results, Mapping) or not results:
        raise ValueError(f"results must be a dictionary by name; got {results!r}.")
    return zip(styles(results), results.keys(), results.values(), strict=True)


def _finish(axes, x, y, *, legend):
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(frameon=False)
