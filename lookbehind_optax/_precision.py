"""Norms, angles and interpolation in float32 or wider, whatever the leaves are."""

import jax
import jax.numpy as jnp
import optax


def wide_dtype(tree):
    """float64 if any leaf is that precise, else float32."""
    # `result_type` sees NumPy's float64 as JAX will: as float32, unless x64 is on.
    is_double = any(
        jnp.finfo(jnp.result_type(x)).bits > 32 for x in jax.tree.leaves(tree)
    )
    return jnp.dtype(jnp.float64 if is_double else jnp.float32)


def widen(tree):
    """Casts every leaf to the wide dtype of the tree; complex leaves stay complex.

    `optax.tree.norm` works in the dtype of the leaves, where the norm of 70 000
    float16 ones is infinite; casting first costs nothing, because XLA fuses the
    cast into the reduction.
    """
    real = wide_dtype(tree)
    complex_ = jnp.complex128 if real == jnp.float64 else jnp.complex64
    return jax.tree.map(
        lambda x: x.astype(complex_ if jnp.iscomplexobj(x) else real), tree
    )


def is_float(x):
    """Whether it is an array of a real or complex floating-point dtype."""
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def floats(tree):
    """The tree with None in place of leaves that aren't floating-point arrays."""
    return jax.tree.map(lambda x: x if is_float(x) else None, tree)


def norm(tree):
    """‖tree‖₂ over all leaves, a scalar of the tree's wide dtype."""
    return jnp.asarray(optax.tree.norm(widen(tree)), wide_dtype(tree))


def dot(a, b):
    """Re⟨a, b⟩ over all leaves, a scalar of the trees' wide dtype."""
    products = jax.tree.map(
        lambda x, y: jnp.sum((jnp.conj(x) * y).real), widen(a), widen(b)
    )
    return optax.tree.sum(products)


def cosine(a, b, eps=1e-8):
    """cos of the angle between two trees, each norm clamped at `eps` from below."""
    return dot(a, b) / (jnp.maximum(norm(a), eps) * jnp.maximum(norm(b), eps))


def interpolate(start, end, alpha):
    """start + α (end − start) for two arrays, in float32 or wider."""
    wide_start, wide_end = widen((start, end))
    a = jnp.asarray(alpha, wide_end.dtype)
    return (wide_start + a * (wide_end - wide_start)).astype(start.dtype)


def cast_like(tree, like):
    """`tree` with the dtypes of `like`, leaf by leaf."""
    return jax.tree.map(
        lambda x, y: x if x.dtype == y.dtype else x.astype(y.dtype), tree, like
    )
