"""Comparing trees that may hold PRNG keys, and states with unknown contents."""

import chex
import jax
import jax.numpy as jnp
import optax


def is_key(x):
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def without_keys(tree):
    """The tree with the integers that keys are made of in place of the keys."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def without_perturbed_loss(tree):
    """A step by hand can't see it."""
    tree = without_keys(tuple(tree))
    if not optax.tree.get_all_with_path(tree, "perturbed_loss"):
        return tree
    return optax.tree.set(tree, perturbed_loss=jnp.float32(0.0))


def assert_close(actual, expected, rtol=1e-6, atol=None):
    trees = without_keys(actual), without_keys(expected)
    chex.assert_trees_all_close(*trees, rtol=rtol, atol=rtol if atol is None else atol)
