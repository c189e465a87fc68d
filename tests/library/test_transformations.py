"""What isn't a transformation is refused where it is passed."""

import functools

import jax.numpy as jnp
import optax
import pytest

import lookbehind_optax as lb
from tests.library.members import SGD
from tests.library.problems import regression
from tests.library.problems import regression_loss

WITH_A_BASE = {
    **{name: getattr(lb, name) for name in ("sam", "gsam", "lookbehind_asam")},
    "lookahead": lb.lookahead,
    "sharpness_aware": functools.partial(
        lb.sharpness_aware,
        direction=lb.sam_direction(),
        descent=lb.last_descent(),
        rho=0.1,
    ),
}
NO_OPTIMIZER = {
    "not called": (optax.sgd, "<function sgd"),
    "a rate": (0.1, r"0\.1 of type float"),
    "missing": (None, "None"),
}


@pytest.mark.parametrize("member", WITH_A_BASE)
@pytest.mark.parametrize("what", NO_OPTIMIZER)
def test_a_base(member, what):
    value, said = NO_OPTIMIZER[what]
    message = rf"^base must be an .*, such as optax\.sgd\(0\.1\); got {said}"
    with pytest.raises(TypeError, match=message):
        WITH_A_BASE[member](value)


def test_swapped_with_rho():
    with pytest.raises(TypeError, match=r"^base must be .*; got 0\.05 of type float"):
        lb.sam(0.05, SGD)


def test_a_direction():
    message = r"^direction must be .*, such as sam_direction\(\); got <function"
    with pytest.raises(TypeError, match=message):
        lb.sharpness_aware(SGD, lb.sam_direction, lb.last_descent(), 0.1)


def test_a_step_of_an_optimizer_and_a_loss():
    with pytest.raises(TypeError, match=r"^optimizer must be .*; got <function"):
        lb.make_step(SGD, regression_loss)


def test_multi_steps_has_the_methods(standard_promotion):
    params, batch = regression()
    several = optax.MultiSteps(SGD, 2)
    state = several.init(params)
    step = lb.make_step(regression_loss, several)
    _, state, _ = step(params, state, *batch)
    assert jnp.all(state.mini_step == 1)
