"""Every member with linen and with NNX: the step is what is written by hand."""

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import optax
import pytest

from tests.library import test_linen as linen
from tests.library import test_nnx as of_nnx
from tests.library.comparisons import without_perturbed_loss
from tests.library.lenient import lenient
from tests.library.members import MEMBERS
from tests.library.members import SGD
from tests.library.problems import classification

pytestmark = pytest.mark.accelerator

BASES = {"sgd": SGD, "adam": lenient(optax.adam(0.1))}
OPTIMIZERS = {
    **BASES,
    **{name: member(SGD) for name, member in MEMBERS.items()},
    "lookbehind_sam_over_adam": MEMBERS["lookbehind_sam"](BASES["adam"]),
}
# Of two programs, whose reductions a device may do in another order.
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_linen(name):
    here = there = linen.make_state(OPTIMIZERS[name])
    for _ in range(3):
        here, _ = linen.train_step(here, *classification())
        there, _ = linen.step_by_hand(there, *classification())
    chex.assert_trees_all_close(here.params, there.params, **CLOSE)
    chex.assert_trees_all_close(here.batch_stats, there.batch_stats, **CLOSE)
    states = [without_perturbed_loss((it.opt_state,)) for it in (here, there)]
    chex.assert_trees_all_close(*states, **CLOSE)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nnx(name):
    here, there = (of_nnx.make(OPTIMIZERS[name], dropout=0.0) for _ in range(2))
    start = jax.tree.map(jnp.copy, nnx.as_pure(nnx.state(here[0], nnx.Param)))
    for _ in range(3):
        of_nnx.train_step(*here, *classification())
        of_nnx.step_by_hand(*there, *classification())
    models = [nnx.as_pure(nnx.state(model)) for model, _ in (here, there)]
    models = [of_nnx.without_keys(model) for model in models]
    chex.assert_trees_all_close(*models, **CLOSE)
    end = nnx.as_pure(nnx.state(here[0], nnx.Param))
    assert optax.tree.norm(optax.tree.sub(end, start)) > 1e-3
