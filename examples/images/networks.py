"""The network that `--model` names: one of `MODELS`, or your own."""

import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from examples.images.models import MODELS
from examples.images.sources import first_line


def make(name: str, classes: int, dtype: Any, image: tuple[int, int, int]) -> Any:
    """Makes a network.

    Args:
      name: one of `MODELS`, or "package.module:Factory". The factory is called like
        these, with `classes` and `dtype`, and gives a Flax linen module whose call
        takes images and `train`.
      classes: number of classes.
      dtype: of the computation.
      image: height, width and channels of an image.

    Raises:
      ValueError: if there is no such network, or it doesn't give logits.
    """
    if name in MODELS:
        return MODELS[name](classes=classes, dtype=dtype)
    module, colon, factory = name.partition(":")
    if not (colon and module and factory):
        raise ValueError(
            f"--model must be one of {', '.join(MODELS)}, or package.module:Factory; "
            f"got {name}"
        )
    made = _call(_find(module, factory), f"--model {name}", classes, dtype)
    _check(made, f"--model {name}", classes, image)
    return made


def _find(module: str, factory: str) -> Any:
    """Imports a factory from a module."""
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a user's module may raise anything
        raise ValueError(
            f"--model {module}:{factory} can't be imported ({first_line(error)})"
        ) from error
    if not hasattr(imported, factory):
        raise ValueError(f"--model {module}:{factory}: {module} has no {factory}")
    return getattr(imported, factory)


def _call(factory: Any, what: str, classes: int, dtype: Any) -> Any:
    """Calls a factory, and checks that it gives a module."""
    try:
        made = factory(classes=classes, dtype=dtype)
    except Exception as error:
        raise ValueError(
            f"{what} can't be called with classes={classes} and dtype={dtype} "
            f"({first_line(error)})"
        ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"{what} must give a flax.linen.Module; got {type(made).__name__}"
        )
    return made


def _check(model: Any, what: str, classes: int, image: tuple[int, int, int]) -> None:
    """Checks, without computing anything, that a network gives logits."""
    images = jax.ShapeDtypeStruct((2, *image), jnp.float32)

    def start(key, images):
        keys = {"params": key, "dropout": key}
        return model.init_with_output(keys, images, train=True)

    def evaluate(variables, images):
        return model.apply(variables, images, train=False)

    try:
        logits, variables = jax.eval_shape(start, jax.random.key(0), images)
        evaluated = jax.eval_shape(evaluate, variables, images)
    except Exception as error:
        raise ValueError(
            f"{what} can't take images of shape {images.shape} and train "
            f"({first_line(error)})"
        ) from error
    others = sorted(variables.keys() - {"params", "batch_stats"})
    if others:
        raise ValueError(
            f"{what} must have no variables but params and batch_stats; got "
            f"{', '.join(others)}"
        )
    if not jax.tree.leaves(variables.get("params", {})):
        raise ValueError(f"{what} must have parameters; got none")
    for found in (logits, evaluated):
        is_array = isinstance(found, jax.ShapeDtypeStruct)
        got = f"{found.dtype}{list(found.shape)}" if is_array else type(found).__name__
        expected = [f"{kind}[2, {classes}]" for kind in ("float32", "bfloat16")]
        if got not in expected:
            raise ValueError(
                f"{what} must give logits {' or '.join(expected)} for two images; "
                f"got {got}"
            )
