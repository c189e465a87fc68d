"""Transformations that users pass: optimizers, and directions of an ascent."""

from typing import Any

import optax

from lookbehind_optax import _numbers


def accept(
    name: str, value: Any, example: str = "optax.sgd(0.1)"
) -> optax.GradientTransformationExtraArgs:
    """The transformation of an argument, which then takes any extra arguments.

    Args:
      name: of the argument.
      value: what was passed.
      example: of what could have been.

    Raises:
      TypeError: if it isn't a transformation, such as a function that makes one.
    """
    # `optax.MultiSteps` is one by its methods alone.
    if not (hasattr(value, "init") and hasattr(value, "update")):
        raise TypeError(
            f"{name} must be an optax.GradientTransformation, such as {example}; "
            f"got {_numbers.describe(value)}."
        )
    return optax.with_extra_args_support(value)
