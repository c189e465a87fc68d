"""Lines, planes and their axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookbehind_optax import measure
from tests.library.measure.networks import batched
from tests.library.measure.networks import examples
from tests.library.measure.networks import losses
from tests.library.measure.networks import network
from tests.library.measure.networks import numpy_loss


@pytest.mark.usefixtures("x64")
def test_a_line_between_two_points():
    a, arrays = network(), examples()
    b = jax.tree.map(lambda x: x[::-1] + 0.1, a)
    t = np.linspace(-0.5, 1.5, 5)
    found = measure.line(losses, a, measure.towards(a, b), t, batched(arrays, 9))
    for place, value in zip(t, found.values, strict=True):
        mixed = jax.tree.map(lambda x, y, t=place: (1 - t) * x + t * y, a, b)
        np.testing.assert_allclose(value, numpy_loss(mixed, *arrays), rtol=1e-12)


def test_barriers_by_hand():
    t = jnp.array([0.0, 0.5, 2.0])
    # The chord goes 1, 1.5, 3; the values stand 0, 2.5 and 0 above it.
    line = measure.Line(t, {"up": jnp.array([1.0, 4.0, 3.0]), "down": -t})
    np.testing.assert_allclose(line.barrier["up"], 2.5)
    np.testing.assert_allclose(line.barrier["down"], 0.0)


@pytest.mark.usefixtures("x64")
def test_a_plane_through_three_points_goes_through_them():
    a, arrays = network(), examples()
    b = jax.tree.map(lambda x: x + 0.3, a)
    c = jax.tree.map(lambda x: x**2, a)
    axes, points = measure.plane_through(a, b, c)
    flat = [np.array(jax.flatten_util.ravel_pytree(axis)[0]) for axis in axes]
    gram = [[u @ v for u in flat] for v in flat]
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-12)
    for (x, y), point in zip(points, (a, b, c), strict=True):
        found = measure.plane(losses, a, axes, x[None], y[None], batched(arrays, 9))
        assert found.values.shape == (1, 1)
        np.testing.assert_allclose(
            found.values[0, 0], numpy_loss(point, *arrays), rtol=1e-10
        )


def test_rows_are_along_the_second_axis():
    loss = lambda w, x: x * (w[0] + 10 * w[1])
    axes = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    found = measure.plane(
        loss, jnp.zeros(2), axes, jnp.arange(3.0), jnp.arange(2.0), [jnp.ones(2)]
    )
    np.testing.assert_allclose(found.values, [[0, 1, 2], [10, 11, 12]])


def test_filters_of_a_random_axis_have_the_networks_norms():
    rng = np.random.default_rng(0)
    conv = jnp.asarray(rng.normal(size=(3, 3, 4, 5)), jnp.float32)
    params = {"conv": conv, "bias": jnp.ones(5), "scale": jnp.ones(())}
    axis = measure.random_axis(jax.random.key(1), params)
    norms = jnp.linalg.norm(axis["conv"].reshape(-1, 5), axis=0)
    np.testing.assert_allclose(
        norms, jnp.linalg.norm(conv.reshape(-1, 5), axis=0), rtol=1e-5
    )
    assert not axis["bias"].any()
    assert not axis["scale"].any()
    # It is rescaled with the network, which therefore looks the same.
    twice = measure.random_axis(jax.random.key(1), {**params, "conv": 2 * conv})
    np.testing.assert_allclose(twice["conv"], 2 * axis["conv"], rtol=1e-6)


def test_values_may_be_a_tree():
    values = lambda w, x: {"loss": w * x, "positive": w * x > 0}
    t = jnp.array([-1.0, 1.0])
    found = measure.line(values, jnp.zeros(()), jnp.ones(()), t, [jnp.ones(2)])
    np.testing.assert_allclose(found.values["loss"], [-1, 1])
    np.testing.assert_allclose(found.values["positive"], [0, 1])


@pytest.mark.parametrize(
    ("axis", "t", "message"),
    [
        (jnp.ones(3), jnp.ones(2), r"axis .* shapes of params; the leaf .* has \(3,\)"),
        ({"w": jnp.ones(2)}, jnp.ones(2), "axis must be a tree like params"),
        (jnp.ones(2), 0.5, r"t must be a vector of floating-point .* got shape \(\)"),
        (jnp.ones(2), jnp.arange(3), "t must be a vector of floating-point"),
        (jnp.ones(2), jnp.ones(0), "t must be a vector"),
        (jnp.ones(2, int), jnp.ones(2), "axis must hold arrays of floating-point"),
    ],
)
def test_bad_lines(axis, t, message):
    with pytest.raises(ValueError, match=message):
        measure.line(lambda w, x: x * w[0], jnp.ones(2), axis, t, [jnp.ones(3)])


def test_bad_axes_of_a_plane():
    w, t = jnp.ones(2), jnp.ones(1)
    with pytest.raises(ValueError, match=r"axes\[1\] must have the shapes of params"):
        measure.plane(lambda w, x: x, w, (w, jnp.ones(3)), t, t, [jnp.ones(3)])


def test_points_on_one_line():
    w = jnp.array([1.0, 2.0])
    with pytest.raises(ValueError, match="must not be on one line"):
        measure.plane_through(w, 2 * w, 3 * w)
    with pytest.raises(ValueError, match="must not be on one line"):
        measure.plane_through(w, w, jnp.array([0.0, 1.0]))
