"""In float64: the official code's trajectories, and those of the literal algorithms."""

import jax
import numpy as np
import pytest

import lookbehind_optax as lb
from tests.library import test_golden as golden
from tests.library.members import GROUPED
from tests.library.problems import Groups
from tests.library.problems import regression_loss

pytestmark = pytest.mark.accelerator


@pytest.mark.parametrize("file", golden.FILES, ids=lambda file: file.stem)
def test_the_official_code(file, x64):
    golden.test_trajectory(file, None)


class OneGroup(Groups):
    """The whole batch, for which m-SAM is the member itself."""

    number, size = 1, 12


@pytest.mark.parametrize("name", GROUPED)
def test_the_literal_algorithm(name, x64):
    member, problem = GROUPED[name], OneGroup()
    optimizer = member.make(problem.base, problem.rho, problem.k)
    params, state = problem.params, optimizer.init(problem.params)
    step = jax.jit(lb.make_step(regression_loss, optimizer))
    for expected in problem.trajectory(member):
        params, state, _ = step(params, state, *problem.batch)
        for leaf in expected:
            np.testing.assert_allclose(
                params[leaf], expected[leaf], rtol=1e-10, atol=1e-10
            )
