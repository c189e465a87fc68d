"""PRNG keys among the arrays of a tree."""

import jax
import jax.numpy as jnp


def is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def without_keys(tree):
    """The tree with the integers that keys are made of in place of the keys."""
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if hasattr(x, "dtype") and is_key(x) else x,
        tree,
    )
