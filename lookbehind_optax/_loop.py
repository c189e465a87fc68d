"""A loop over the inner steps: one scan on accelerators, straight-line code on CPUs."""

import jax
from jax.experimental.xla_metadata import set_xla_metadata
import jax.numpy as jnp


def repeat(body, carry, start, stop):
    """Returns the carry after `carry = body(i, carry)` for i = start, ..., stop - 1.

    A scan keeps program size and compile time flat in the number of turns. XLA:CPU,
    however, canonicalises convolutions only in the entry computation
    (https://github.com/jax-ml/jax/issues/12868): the gradient of a convolution inside
    a loop or a conditional runs some eighty times slower than outside. So the loop is
    unrolled when lowered for a CPU, and `platform_dependent` makes that choice at
    lowering time, which leaves no conditional behind.

    `jax.jit` around the body has it traced once, however often it is repeated; XLA
    inlines the calls.
    """
    body = jax.jit(body)

    def scanned(carry):
        turns = jnp.arange(start, stop, dtype=jnp.int32)
        return jax.lax.scan(lambda c, i: (body(i, c), None), carry, turns)[0]

    def unrolled(carry):
        for i in range(start, stop):
            carry = body(jnp.int32(i), carry)
        return carry

    if stop - start <= 1:  # a single turn needs no loop anywhere
        return unrolled(carry)
    return jax.lax.platform_dependent(carry, cpu=unrolled, default=scanned)


def now(tree):
    """Returns `tree`, which an unrolled loop must have computed before it goes on.

    XLA:CPU would rather fuse the elementwise work of all turns into one pass at the
    end, and keep the gradient of every turn until then: memory that grows with k. It
    drops optimization barriers before it fuses, but a call that it may not inline
    stops it, and costs nothing.
    """

    def call(tree):
        with set_xla_metadata(inlineable="false"):
            return jax.jit(lambda tree: tree)(tree)

    return jax.lax.platform_dependent(tree, cpu=call, default=lambda tree: tree)
