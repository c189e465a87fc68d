"""The loop over the inner steps."""

import jax
import jax.numpy as jnp
import pytest

from lookbehind_optax import _loop


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (1, 4), (0, 5)])
def test_repeat_passes_indices_in_order(start, stop):
    digits = jax.jit(lambda: _loop.repeat(lambda i, c: 10 * c + i, 0, start, stop))()
    expected = 0
    for i in range(start, stop):
        expected = 10 * expected + i
    assert digits == expected


def test_the_body_is_traced_as_often_for_many_turns_as_for_two():
    def traces(turns):
        count = []

        def body(i, carry):
            count.append(None)
            return jnp.sin(carry)

        jax.jit(lambda x: _loop.repeat(body, x, 0, turns)).lower(1.0)
        return len(count)

    assert traces(20) == traces(2)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_scan_or_straight_line(platform):
    def fives(x):
        return _loop.repeat(lambda i, c: _loop.now(jnp.sin(c)), x, 0, 5)

    module = jax.export.export(jax.jit(fives), platforms=[platform])(1.0).mlir_module()
    assert module.count("stablehlo.while") == (platform != "cpu")
    assert ('inlineable = "false"' in module) == (platform == "cpu")


def test_memory_of_an_unrolled_loop_does_not_grow_with_its_length():
    """Each turn makes a large array and adds it up; `now` frees it before the next."""

    def temporary(turns):
        def body(i, carry):
            x, total = carry
            y = jnp.tanh(x @ x)
            return y, _loop.now(total + jnp.exp(y))

        run = lambda x: _loop.repeat(body, (x, jnp.zeros_like(x)), 0, turns)[1]
        compiled = jax.jit(run).lower(jnp.ones((256, 256))).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporary(12) <= temporary(4)
