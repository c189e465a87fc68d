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
from tests.library.members import ALL

OPTIONS = (
    "switch_minibatches=False, micro_batches=1, m=None, axis_name=None, "
    "fresh_keys=False"
)

PLACE = "mask=None, axis_name=None"
EVERY = f"pullback='none', reuse_gradients=True, {PLACE}"

# Positional arguments with their defaults, then keyword-only ones.
SIGNATURES = {
    "sam": f"base, rho=0.05, *, {PLACE}",
    "asam": f"base, rho=0.5, eta=0.01, *, {PLACE}, weights=None",
    "multistep_sam": f"base, rho=0.05, k=2, *, average=False, {PLACE}",
    "multistep_asam": f"base, rho=0.5, k=2, eta=0.01, *, average=False, {PLACE}, "
    "weights=None",
    "lookbehind_sam": f"base, rho=0.05, k=2, alpha=None, *, {EVERY}",
    "lookbehind_asam": f"base, rho=0.5, k=2, alpha=None, eta=0.01, *, {EVERY}, "
    "weights=None",
    "gsam": f"base, rho=0.05, alpha=0.4, *, {PLACE}",
    "wsam": f"base, rho=0.05, gamma=0.9, *, {PLACE}",
    "friendly_sam": f"base, rho=0.05, sigma=1.0, decay=0.9, *, {PLACE}",
    "sharpness_aware": "base, direction, descent, rho=0.05, k=1, *, "
    f"reuse_gradients=True, {PLACE}",
    "sam_direction": "",
    "asam_direction": "eta=0.01, *, weights=None",
    "friendly_direction": "sigma=1.0, decay=0.9",
    "random_direction": "key",
    "last_descent": "",
    "mean_descent": "",
    "every_descent": "alpha=None, *, pullback='none'",
    "surrogate_gap_descent": "alpha=0.4",
    "weighted_descent": "gamma=0.9",
    "adaptive_alpha": "*, per_tensor=False",
    "lookahead": "base, k=5, alpha=None, outer=None, *, pullback='none'",
    "eval_params": "state, params",
    "make_step": "loss_fn, optimizer, *, has_aux=False, " + OPTIONS,
    "linen_step": "state, loss_fn, *args, has_aux=False, mutable=(), "
    f"dynamic_scale=None, {OPTIONS}, **kwargs",
    "nnx_step": "model, optimizer, loss_fn, *args, has_aux=False, "
    f"dynamic_scale=None, {OPTIONS}, **kwargs",
}
CLASSES = {
    "AdaptiveAlpha": "per_tensor",
    "Descent": "start, after_ascent, finish",
    "LookaheadState": "count, slow, last_sync, base_state, outer_state",
    "ModelState": "value",
    "SharpnessAwareState": "count, base_state, direction_state, alpha, grad_norm, "
    "perturbed_loss",
    "Step": "count, k, params, grads, base, base_state, mean",
    "StepOutput": "loss, aux, grad_norm, perturbed_loss, alpha, finite, dynamic_scale",
}


def test_public_names():
    public = {
        name
        for name, value in vars(lb).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(SIGNATURES) | set(CLASSES)


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


@pytest.mark.parametrize("name", CLASSES)
def test_attributes(name):
    """In this order, and all of them documented."""
    value = getattr(lb, name)
    assert ", ".join(inspect.signature(value).parameters) == CLASSES[name]
    doc = inspect.getdoc(value)
    assert doc is not None
    if name != "AdaptiveAlpha":  # which `adaptive_alpha` makes
        assert all(f"  {field}: " in doc for field in CLASSES[name].split(", "))


@pytest.mark.parametrize("name", SIGNATURES)
def test_docstrings_have_an_example_and_a_source(name):
    doc = inspect.getdoc(getattr(lb, name))
    assert doc is not None
    assert ">>> " in doc
    assert "<https://arxiv.org/abs/" in doc


@pytest.mark.parametrize("name", ALL)
def test_members_are_transformations_with_extra_arguments(name):
    made = ALL[name](optax.sgd(0.1))
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
