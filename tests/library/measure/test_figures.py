"""Figures show what was measured, in legible form."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from lookbehind_optax import measure

SHARPNESS = measure.Sharpness(
    jnp.array([0.1, 0.2]), jnp.float32(1.0), jnp.array([1.5, 3.0])
)
NOISE = measure.WeightNoise(
    jnp.array([0.1, 0.2]), {"accuracy": jnp.array([[0.9, 0.8], [0.5, 0.1]])}
)
LINE = measure.Line(jnp.array([0.0, 1.0]), jnp.array([2.0, 3.0]))
PLANE = measure.Plane(jnp.arange(3.0), jnp.arange(2.0), jnp.arange(6.0).reshape(2, 3))
SPECTRUM = measure.Spectrum(jnp.array([[0.0, 5.0]]), jnp.array([[0.9, 0.1]]))
CLIMB = measure.Climb(jnp.array([1.0, 2.0]), jnp.array([1.0, 0.5]))

FIGURES = {
    "trade_off": lambda: measure.plot_trade_off({"SAM": {0.1: SHARPNESS}}),
    "sharpness": lambda: measure.plot_sharpness({"SAM": SHARPNESS}),
    "noise": lambda: measure.plot_noise({"SAM": NOISE}, "accuracy", "accuracy"),
    "alpha": lambda: measure.plot_alpha({"global": jnp.array([1.0, 0.8])}),
    "climb": lambda: measure.plot_climb({"SAM": CLIMB}),
    "line": lambda: measure.plot_line({"a to b": LINE}),
    "plane": lambda: measure.plot_plane(PLANE, {"a": (0.0, 0.0)}),
    "spectrum": lambda: measure.plot_spectrum({"SAM": SPECTRUM}, width=0.1),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_and_labeled(name, tmp_path):
    figure = FIGURES[name]()
    figure.savefig(tmp_path / "figure.png")
    axes = figure.axes[0]
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    assert len(axes.get_legend().get_texts()) == 1


def test_curves_go_through_what_was_measured():
    (curve,) = FIGURES["sharpness"]().axes[0].lines
    np.testing.assert_allclose(curve.get_xydata(), [[0.1, 0.5], [0.2, 2.0]], rtol=1e-6)
    axes = FIGURES["trade_off"]().axes[0]
    (curve,), (points,) = axes.lines, axes.collections
    np.testing.assert_allclose(curve.get_xydata(), [[0.5, 1.0]], rtol=1e-6)
    np.testing.assert_array_equal(points.get_offsets(), curve.get_xydata())
    (curve,) = FIGURES["noise"]().axes[0].lines
    np.testing.assert_allclose(curve.get_xydata(), [[0.1, 0.85], [0.2, 0.3]], rtol=1e-6)


def test_points_of_a_trade_off_grow_with_rho():
    figure = measure.plot_trade_off({"SAM": dict.fromkeys((0.2, 0.1, 0.4), SHARPNESS)})
    (points,) = figure.axes[0].collections
    sizes = [*points.get_sizes()]
    assert len(sizes) == 3
    assert sizes == sorted(set(sizes))
    assert [text.get_text() for text in figure.axes[0].texts] == ["ρ = 0.4"]


def test_every_curve_looks_different():
    figure = measure.plot_sharpness({str(i): SHARPNESS for i in range(20)})
    looks = {(c.get_color(), c.get_marker()) for c in figure.axes[0].lines}
    assert len(looks) == 20


def test_every_point_of_a_plane_is_marked():
    points = {str(i): (0.0, 0.0) for i in range(9)}
    legend = measure.plot_plane(PLANE, points).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(points)


def test_sharpness_that_isnt_positive_has_a_linear_scale():
    assert FIGURES["sharpness"]().axes[0].get_yscale() == "log"
    below = SHARPNESS._replace(perturbed_loss=SHARPNESS.loss - SHARPNESS.rho)
    figure = measure.plot_sharpness({"SAM": SHARPNESS, "SGD": below})
    assert figure.axes[0].get_yscale() == "linear"


def colors(*names):
    return [style["color"] for style in measure.styles(names)]


def test_a_method_has_one_color():
    sam, late, asam, lookbehind = colors(
        "SAM of radius kρ", "sam, late", "ASAM", "lookbehind_sam"
    )
    assert sam == late
    assert len({sam, asam, lookbehind}) == 3
    assert colors("Lookbehind-ASAM, k = 5", "SGD", "Multistep-SAM")[0] == lookbehind
    assert colors("GSAM")[0] == colors("Friendly-SAM")[0]
    # A part of a word is no name of a method.
    assert colors("SAM", "samples")[0] != colors("SAM", "samples")[1]


def test_curves_of_one_method_differ_by_dashes_and_markers():
    here = measure.styles(["SAM", "SAM, late", "SAM, early", "SAM, spread"])
    assert len({style["linestyle"] for style in here}) == 4
    assert len({style["marker"] for style in here}) == 4


def test_other_names_have_the_colors_that_no_method_takes():
    named = colors("SAM", "Lookbehind-SAM")
    *others, _, _ = colors("mine", "yours", "SAM", "Lookbehind-SAM")
    assert not {*others} & {*named}
    assert len({*others}) == 2


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="results must be a dictionary by name"):
        measure.plot_sharpness({})


def test_without_matplotlib_it_says_what_to_install():
    code = """
import sys
sys.modules["matplotlib"] = None
import jax.numpy as jnp
from lookbehind_optax import measure
line = measure.Line(jnp.ones(2), jnp.ones(2))
try:
    measure.plot_line({"a": line})
except ModuleNotFoundError as error:
    assert "lookbehind-optax[plots]" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
