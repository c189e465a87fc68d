"""PyTorch's side of the benchmark of peers does what ours does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.speed import networks
from examples.images.models import Transformer
import lookbehind_optax as lb

torch = pytest.importorskip(
    "torch", reason="PyTorch isn't installed: pip install -e .[peers]"
)
torch_networks = pytest.importorskip("benchmarks.speed.torch_networks")
torch_loop = pytest.importorskip(
    "benchmarks.speed.torch_loop", reason="pytorch_optimizer isn't installed"
)

SMALL = Transformer(vocabulary=11, width=8, heads=2, layers=2, length=5)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(networks.DECODERS, "small", SMALL)


@pytest.mark.parametrize("name", ["small", "wrn-10-1", "resnet34"])
@pytest.mark.usefixtures("small")
def test_twins_have_the_same_loss_and_parameters(name):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        network = networks.make(name, "fp32", 3)
        ours = network.loss(network.params, network.batch)
    model, loss = torch_loop.of_torch(name, network, "fp32")
    assert sum(p.numel() for p in model.parameters()) == network.size
    np.testing.assert_allclose(ours, loss(model).item(), rtol=1e-5)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.usefixtures("small")
def test_the_loop_is_algorithm_1(k):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        network = networks.make("small", "fp32", 3)
        base = optax.sgd(0.1, momentum=0.9)
        optimizer = lb.lookbehind_sam(base, rho=0.1, k=k, alpha=0.7)
        params, state = network.params, optimizer.init(network.params)
        step = jax.jit(lb.make_step(network.loss, optimizer))
        for _ in range(2):
            params, state, _ = step(params, state, network.batch)
    model, loss = torch_loop.of_torch("small", network, "fp32")
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loop = torch_loop.Lookbehind(sgd, rho=0.1, k=k, alpha=0.7)
    for _ in range(2):
        loop.step(functools.partial(loss, model))
    expected, _ = torch_networks.twin("small")
    torch_networks.copy_weights(params, expected)
    moved = jnp.sqrt(
        optax.tree.norm(jax.tree.map(jnp.subtract, params, network.params))
    )
    assert moved > 0.1
    for ours, theirs in zip(expected.parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(
            ours.detach().numpy(), theirs.detach().cpu().numpy(), atol=2e-6
        )
