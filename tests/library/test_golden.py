"""The trajectories of the official PyTorch implementations, to 1e-9 relative."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lookbehind_optax as lb
from tests.library.members import each

FILES = sorted((pathlib.Path(__file__).parent / "golden").glob("*.npz"))
ONE_OF_EACH = {"asam_k3_adaptive", "sam_k2_static", "lookahead_k3_reset"}


def loss(params, x, y):
    hidden = jnp.tanh(
        jnp.einsum("bi,oi->bo", x, params["0.weight"]) + params["0.bias"][None]
    )
    logits = (
        jnp.einsum("bi,oi->bo", hidden, params["2.weight"]) + params["2.bias"][None]
    )
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def optimizer_of(config):
    base = optax.chain(
        optax.add_decayed_weights(config["wd"]),
        optax.sgd(config["lr"], momentum=config["mom"]),
    )
    if config["kind"] == "Lookahead":
        pullback = config.get("pullback", "none")
        return lb.lookahead(base, config["k"], config["alpha"], pullback=pullback)
    alpha = config["alpha"]
    if alpha == -1:
        alpha = lb.adaptive_alpha(per_tensor=True)
    if config["kind"] == "SAM":
        return lb.lookbehind_sam(base, config["rho"], config["k"], alpha)
    return lb.lookbehind_asam(
        base, config["rho"], config["k"], alpha, eta=config["eta"]
    )


def test_there_are_golden_files():
    assert len(FILES) == 7


@pytest.mark.parametrize(
    "file",
    each(FILES, [file for file in FILES if file.stem in ONE_OF_EACH]),
    ids=lambda file: file.stem,
)
def test_trajectory(file, x64):
    data = np.load(file)
    config = json.loads(str(data["config"]))
    optimizer = optimizer_of(config)
    kind = "fast" if config["kind"] == "Lookahead" else "param"
    names = [name.split("/")[1] for name in data if name.startswith(kind + "/")]
    params = {name: jnp.asarray(data[f"{kind}/{name}"][0]) for name in names}
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, x, y):
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, state = optimizer.update(
            grads, state, params, grad_fn=lambda p, i: jax.grad(loss)(p, x, y)
        )
        return optax.apply_updates(params, updates), state, value

    for t in range(config["steps"]):
        x, y = jnp.asarray(data["x"][t]), jnp.asarray(data["y"][t])
        params, state, value = step(params, state, x, y)
        np.testing.assert_allclose(value, data["losses"][t], rtol=1e-9)
        for name in names:
            got = {kind: params, "slow": lb.eval_params(state, params)}
            for which in [kind, "slow"] if kind == "fast" else [kind]:
                np.testing.assert_allclose(
                    got[which][name],
                    data[f"{which}/{name}"][t + 1],
                    rtol=1e-9,
                    atol=1e-12,
                    err_msg=f"{which}/{name} after step {t + 1}",
                )
