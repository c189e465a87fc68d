"""A loop over the inner steps: one scan, or straight-line code around convolutions."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
import jax.numpy as jnp


def repeat(body, carry, start, stop):
    """Returns the carry after `carry = body(i, carry)` for i = start, ..., stop - 1.

    A scan keeps program size and compile time flat in the number of repetitions.
    XLA:CPU, however, canonicalizes convolutions only in the entry computation
    (https://github.com/jax-ml/jax/issues/12868): the gradient of a convolution inside
    a loop or a conditional runs some eighty times slower than outside. So a body that
    holds one is unrolled when lowered for a CPU, and `platform_dependent` makes that
    choice at lowering time, which leaves no conditional behind. Two repetitions are
    also unrolled on a CPU, where they take less memory without a loop.

    With `jax.jit` around it, the body is traced once, however often it is repeated; XLA
    inlines the calls.
    """
    body = jax.jit(body)

    def scanned(carry):
        indices = jnp.arange(start, stop, dtype=jnp.int32)
        return jax.lax.scan(lambda c, i: (body(i, c), None), carry, indices)[0]

    def unrolled(carry):
        for i in range(start, stop):
            carry = body(jnp.int32(i), carry)
        return carry

    if stop - start <= 1:  # a single repetition needs no loop anywhere
        return unrolled(carry)
    jaxpr = jax.make_jaxpr(body)(jnp.int32(start), carry).jaxpr
    if stop - start > 2 and not any(map(is_convolution, equations(jaxpr))):
        return scanned(carry)
    return jax.lax.platform_dependent(carry, cpu=unrolled, default=scanned)


def now(tree):
    """Returns `tree`, and makes an unrolled loop compute it before continuing.

    Otherwise, XLA:CPU fuses the elementwise work of all repetitions into one pass at
    the end and keeps the gradient of each until then, so memory grows with k. It drops
    optimization barriers before it fuses, but a call that it may not inline prevents
    the fusion and costs nothing.
    """

    def call(tree):
        with set_xla_metadata(inlineable="false"):
            return jax.jit(lambda tree: tree)(tree)

    return jax.lax.platform_dependent(tree, cpu=call, default=lambda tree: tree)


def equations(jaxpr) -> Iterator[Any]:
    """The equations of a jaxpr, including those of every jaxpr that it calls."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(list(eqn.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def is_convolution(eqn) -> bool:
    """Whether it is a convolution, which is slow on CPUs in a loop or when grouped."""
    return eqn.primitive.name == "conv_general_dilated"
