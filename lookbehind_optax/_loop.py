"""A loop over the inner steps: one scan on accelerators, straight-line code on CPUs."""

import jax
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
