"""One's own network, as `--model package.module:Factory`."""

import jax
import jax.numpy as jnp
import pytest

from examples.images import networks
from examples.images.models import ConvNet
from tests.examples.images.files import NETWORKS

IMAGE = (8, 8, 3)


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A module of networks in the working directory."""
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
    networks.importlib.sys.modules.pop("own_networks", None)


def test_names_of_the_table():
    made = networks.make("convnet", 7, jnp.bfloat16, IMAGE)
    assert made == ConvNet(classes=7, dtype=jnp.bfloat16)


@pytest.mark.parametrize("name", ["Perceptron", "with_norm"])
def test_own_networks(name):
    made = networks.make(f"own_networks:{name}", 7, jnp.bfloat16, IMAGE)
    images = jax.ShapeDtypeStruct((3, *IMAGE), jnp.float32)
    key = jax.random.key(0)
    logits, variables = jax.eval_shape(
        lambda key, images: made.init_with_output(key, images, train=True), key, images
    )
    assert logits.shape == (3, 7)
    assert ("batch_stats" in variables) == (name == "with_norm")
