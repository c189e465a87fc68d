"""PRNG keys among the arguments of a loss."""

import jax
import jax.numpy as jnp


def fold(tree, number):
    """Folds the number into every key (of `jax.random.key`) in the tree."""

    def fold_leaf(x):
        if not _is_key(x):
            return x
        folded = jax.vmap(lambda key: jax.random.fold_in(key, number))(x.reshape(-1))
        return folded.reshape(x.shape)

    return jax.tree.map(fold_leaf, tree)


def present(tree):
    return any(map(_is_key, jax.tree.leaves(tree)))


def _is_key(x):
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
