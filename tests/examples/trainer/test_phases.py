"""Phases as a training plans them."""

import jax.numpy as jnp
import numpy as np
import pytest

from examples.images.config import Config
from examples.trainer.phases import Phased

pytestmark = pytest.mark.usefixtures("standard_promotion")


def planned(config, examples):
    """A training of nothing but a plan."""
    training = Phased(config)
    training.unit = "images"
    training.plan(examples)
    return training


def test_the_learning_rate_that_is_logged_is_the_one_that_trains():
    """Steps of 2 examples out of 8, for 5 epochs; 12 steps, and 8 of SAM."""
    config = Config(
        epochs=5,
        batch_size=2,
        learning_rate=0.4,
        momentum=0.0,
        weight_decay=0.0,
        phases=("base until 0.6", "sam until 1"),
        anneal="each",
    )
    training = planned(config, 8)
    assert (training.steps_per_epoch, training.steps) == (4, 20)
    assert [phase.until for phase in training.phases] == [12, 20]
    params, slope = jnp.zeros(2), jnp.array([1.0, -1.0])
    state = training.phases[0].optimizer.init(params)
    trained = []
    for step in range(training.steps):
        phase = next(phase for phase in training.phases if step < phase.until)
        updates, state = phase.optimizer.update(
            slope, state, params, grad_fn=lambda params, i: slope
        )
        trained.append(-float(updates[0]))
    logged = [float(training.schedule(step)) for step in range(training.steps)]
    np.testing.assert_allclose(trained, logged, atol=1e-7)
    # At the peak, half-way down, at the peak again, and half-way down.
    assert [logged[i] for i in (0, 6, 12, 16)] == pytest.approx([0.4, 0.2, 0.4, 0.2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"batch_size": 10},
            r"^--batch-size is too large: a step takes 10 of the 8 ",
        ),
        (
            {
                "switch_minibatches": True,
                "phases": ("base until 0.5", "multistep_sam until 1"),
            },
            r"^--switch-minibatches needs one k in all --phases; got 0, 2$",
        ),
    ],
)
def test_plans_that_it_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        planned(Config(**{"batch_size": 2} | values), 8)
