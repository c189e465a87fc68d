"""Noise in the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookbehind_optax import measure


def test_noise_is_multiplicative_and_of_its_deviation():
    # The mean of w² over draws is 1 + σ², and of w it is 1, for w = 1.
    values = lambda w, x: {"first": w[0] * x, "square": jnp.mean(w**2) * x}
    found = measure.weight_noise(
        values, jnp.ones(20_000), [jnp.ones(3)], [0.1, 0.5], draws=20
    )
    assert found.values["first"].shape == (2, 20)
    np.testing.assert_allclose(found.mean["square"], [1.01, 1.25], rtol=5e-3)
    assert np.all(np.abs(found.mean["first"] - 1) < 4 * found.sigma / np.sqrt(20))
    np.testing.assert_allclose(
        found.std["first"], np.std(found.values["first"], axis=1, ddof=1), rtol=1e-5
    )


def test_zero_weights_stay_and_draws_differ():
    found = measure.weight_noise(
        lambda w, x: {"zero": w[0] * x, "one": w[1] * x},
        jnp.array([0.0, 1.0]),
        [jnp.ones(2)],
        0.3,
        draws=7,
    )
    assert not found.values["zero"].any()
    assert len(set(found.values["one"][0].tolist())) == 7


def test_the_same_key_draws_the_same():
    def measured(seed):
        key = jax.random.key(seed)
        loss = lambda w, x: w * x
        return measure.weight_noise(loss, jnp.ones(()), [jnp.ones(2)], 0.3, key=key)

    np.testing.assert_array_equal(measured(1).values, measured(1).values)
    assert np.all(measured(1).values != measured(2).values)


def test_statistics_are_estimated_for_each_draw():
    """A normalized network doesn't notice that its only weight is another."""
    rng = np.random.default_rng(0)
    batches = [jnp.asarray(rng.normal(size=8), jnp.float32) for _ in range(200)]

    def reestimate(w, statistics, x):
        return 0.9 * statistics + 0.1 * jnp.mean((w * x) ** 2)

    def squares(w, statistics, x):
        return (w * x) ** 2 / statistics

    start = jnp.float32(1.0)
    options = dict(draws=5, statistics=start, reestimate=reestimate)
    found = measure.weight_noise(
        squares, jnp.float32(1.0), batches, 0.5, training_batches=batches, **options
    )
    frozen = measure.weight_noise(
        lambda w, x: squares(w, start, x), jnp.float32(1.0), batches, 0.5, draws=5
    )
    # The same statistics up to the factor w², whatever w is: all draws agree.
    assert np.std(found.values) < 1e-3 * np.mean(found.values)
    assert np.std(frozen.values) > 0.1
    # By hand, for the noise of a draw known from the frozen network.
    statistics = start
    weight = np.sqrt(frozen.values[0, 0] / measure.mean(lambda p, x: x**2, 0, batches))
    for x in batches:
        statistics = reestimate(weight, statistics, x)
    expected = measure.mean(lambda w, x: squares(w, statistics, x), weight, batches)
    np.testing.assert_allclose(found.values[0, 0], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": [-0.1]}, "sigma must be positive"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"batches": []}, "batches must hold at least one example"),
        ({"statistics": jnp.ones(2)}, "are for reestimate, which is missing"),
        (
            {"reestimate": lambda w, s, x: s, "statistics": {}},
            "A network without BatchNorm needs no reestimate",
        ),
        (
            {"reestimate": lambda w, s, x: s, "statistics": jnp.ones(2)},
            "training_batches must be given with reestimate",
        ),
        (
            {
                "reestimate": lambda w, s, x: s,
                "statistics": jnp.ones(2),
                "training_batches": [],
            },
            "training_batches must hold at least one batch; got none",
        ),
    ],
)
def test_bad_input(change, message):
    arguments = {"batches": [jnp.ones(3)], "sigma": 0.1}
    with pytest.raises(ValueError, match=message):
        measure.weight_noise(
            lambda w, *x: w * x[-1], jnp.ones(()), **{**arguments, **change}
        )
