"""Optax's optimizers under strict dtype promotion, which some of them don't survive."""

import jax
import optax


def lenient(base):
    """`base` with standard promotion inside it, and strictness all around.

    Adam, for one, raises a float to an integer power. What the library itself does
    stays under the strict rules of conftest.py.
    """
    base = optax.with_extra_args_support(base)

    def init(params):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return base.init(params)

    def update(updates, state, params=None, **extra_args):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return base.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init, update)
