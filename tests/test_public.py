"""The public names: their signatures, their documentation, and what they import."""

import inspect
import os
import subprocess
import sys

import jax.numpy as jnp
import optax
import pytest

import lookbehind_optax as lb
from lookbehind_optax import measure

OPTIONS = (
    "switch_minibatches=False, micro_batches=1, m=None, axis_name=None, "
    "fresh_keys=False"
)

# Positional arguments with their defaults, then keyword-only ones.
SIGNATURES = {
    "sam": "base, rho=0.05, *, mask=None, axis_name=None",
    "asam": "base, rho=0.5, eta=0.01, *, mask=None, axis_name=None, weights=None",
    "multistep_sam": "base, rho=0.05, k=2, *, average=False, mask=None, axis_name=None",
    "multistep_asam": "base, rho=0.5, k=2, eta=0.01, *, average=False, mask=None, "
    "axis_name=None, weights=None",
    "lookbehind_sam": "base, rho=0.05, k=2, alpha=0.5, *, reuse_gradients=True, "
    "mask=None, axis_name=None",
    "lookbehind_asam": "base, rho=0.5, k=2, alpha=0.5, eta=0.01, *, "
    "reuse_gradients=True, mask=None, axis_name=None, weights=None",
    "sharpness_aware": "base, direction, rho=0.05, k=1, alpha=1.0, *, descent='last', "
    "reuse_gradients=True, mask=None, axis_name=None",
    "sam_direction": "",
    "asam_direction": "eta=0.01, *, weights=None",
    "adaptive_alpha": "*, per_tensor=False",
    "lookahead": "base, k=5, alpha=0.5, *, pullback='none'",
    "eval_params": "state, params",
    "make_step": "loss_fn, optimizer, *, has_aux=False, " + OPTIONS,
    "linen_step": "state, loss_fn, *args, has_aux=False, mutable=(), "
    f"dynamic_scale=None, {OPTIONS}, **kwargs",
    "nnx_step": "model, optimizer, loss_fn, *args, has_aux=False, "
    f"dynamic_scale=None, {OPTIONS}, **kwargs",
}
STATES = {"SharpnessAwareState", "LookaheadState", "AdaptiveAlpha", "StepOutput"}


def test_public_names():
    public = {
        name
        for name, value in vars(lb).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(SIGNATURES) | STATES


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    bare = inspect.signature(getattr(lb, name))
    bare = bare.replace(
        parameters=[
            p.replace(annotation=inspect.Parameter.empty)
            for p in bare.parameters.values()
        ],
        return_annotation=inspect.Signature.empty,
    )
    assert str(bare) == f"({SIGNATURES[name]})"


@pytest.mark.parametrize("name", SIGNATURES)
def test_docstrings_have_an_example_and_a_source(name):
    doc = inspect.getdoc(getattr(lb, name))
    assert doc is not None
    assert ">>> " in doc
    assert "<https://arxiv.org/abs/" in doc


@pytest.mark.parametrize("name", [n for n in SIGNATURES if "base" in SIGNATURES[n]])
def test_members_are_transformations_with_extra_arguments(name):
    direction = {"direction": lb.sam_direction()} if name == "sharpness_aware" else {}
    made = getattr(lb, name)(optax.sgd(0.1), **direction)
    assert isinstance(made, optax.GradientTransformationExtraArgs)
    made.init(jnp.ones(2))


MEASURES = [
    name
    for name, value in vars(measure).items()
    if inspect.isfunction(value) and not name.startswith(("_", "plot_"))
]


@pytest.mark.parametrize("name", MEASURES)
def test_measures_have_an_example(name):
    doc = inspect.getdoc(getattr(measure, name))
    assert doc is not None
    assert ">>> " in doc
    assert "Args:\n" in doc
    assert "Returns:\n" in doc


def test_nothing_is_imported_beyond_jax_and_optax():
    """Flax and the rest serve the examples and the tests."""
    others = ["flax", "chex", "matplotlib", "sklearn", "tqdm", "orbax", "hypothesis"]
    code = f"""
import sys
sys.modules.update({{name: None for name in {others}}})  # importing one now fails
import jax.numpy as jnp, lookbehind_optax as lb, optax
import lookbehind_optax.measure
optimizer = lb.lookahead(lb.lookbehind_asam(optax.sgd(0.1)))
p = jnp.ones(2)
optimizer.update(p, optimizer.init(p), p, grad_fn=lambda p, i: p)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_importing_leaves_the_backend_alone():
    """Once it has started, `jax.distributed.initialize` refuses to."""
    code = """
import jax, lookbehind_optax.measure
jax.config.update("jax_num_cpu_devices", 3)  # an error once there is a backend
assert jax.device_count() == 3
"""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-W", "error", "-c", code]
    subprocess.run(command, check=True, env=environment)
