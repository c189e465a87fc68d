"""Measurements of trained networks: sharpness, curvature, landscapes, weight noise.

They work with any model in JAX, however it was trained: they take a function that
returns the loss of each example, the parameters, and the batches of a dataset. Each
measurement compiles the function; `compiled` keeps its programs for later measurements.
"""

from lookbehind_optax.measure._batches import mean as mean
from lookbehind_optax.measure._climb import Climb as Climb
from lookbehind_optax.measure._climb import climb as climb
from lookbehind_optax.measure._figures import plot_alpha as plot_alpha
from lookbehind_optax.measure._figures import plot_climb as plot_climb
from lookbehind_optax.measure._figures import plot_line as plot_line
from lookbehind_optax.measure._figures import plot_noise as plot_noise
from lookbehind_optax.measure._figures import plot_plane as plot_plane
from lookbehind_optax.measure._figures import plot_sharpness as plot_sharpness
from lookbehind_optax.measure._figures import plot_spectrum as plot_spectrum
from lookbehind_optax.measure._figures import plot_trade_off as plot_trade_off
from lookbehind_optax.measure._figures import styles as styles
from lookbehind_optax.measure._hessian import Eigenpairs as Eigenpairs
from lookbehind_optax.measure._hessian import hessian_eigenvalues as hessian_eigenvalues
from lookbehind_optax.measure._hessian import hessian_spectrum as hessian_spectrum
from lookbehind_optax.measure._hessian import hessian_trace as hessian_trace
from lookbehind_optax.measure._hessian import (
    hessian_vector_product as hessian_vector_product,
)
from lookbehind_optax.measure._hessian import Spectrum as Spectrum
from lookbehind_optax.measure._hessian import Trace as Trace
from lookbehind_optax.measure._landscape import Line as Line
from lookbehind_optax.measure._landscape import line as line
from lookbehind_optax.measure._landscape import Plane as Plane
from lookbehind_optax.measure._landscape import plane as plane
from lookbehind_optax.measure._landscape import plane_through as plane_through
from lookbehind_optax.measure._landscape import random_axis as random_axis
from lookbehind_optax.measure._landscape import towards as towards
from lookbehind_optax.measure._noise import weight_noise as weight_noise
from lookbehind_optax.measure._noise import WeightNoise as WeightNoise
from lookbehind_optax.measure._programs import compiled as compiled
from lookbehind_optax.measure._sharpness import Sharpness as Sharpness
from lookbehind_optax.measure._sharpness import sharpness as sharpness
