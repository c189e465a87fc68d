"""The loop over the inner steps."""

import jax
import jax.numpy as jnp
import pytest

from lookbehind_optax import _loop
from tests.library.members import each


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (1, 4), (0, 5)])
def test_repeat_passes_indices_in_order(start, stop):
    digits = jax.jit(lambda: _loop.repeat(lambda i, c: 10 * c + i, 0, start, stop))()
    expected = 0
    for i in range(start, stop):
        expected = 10 * expected + i
    assert digits == expected


def convolved(x):
    """Something with a convolution in it, from a scalar to a scalar."""
    image = x * jnp.ones((1, 4, 4, 1))
    kernel = jnp.ones((3, 3, 1, 1))
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=dimensions
    )
    return jnp.mean(jnp.sin(y))


@pytest.mark.parametrize("function", [jnp.sin, convolved], ids=["scan", "straight"])
def test_the_body_is_traced_as_often_for_many_repetitions_as_for_two(function):
    def traces(repetitions):
        count = []

        def body(i, carry):
            count.append(None)
            return function(carry)

        jax.jit(lambda x: _loop.repeat(body, x, 0, repetitions)).lower(1.0)
        return len(count)

    assert traces(20) == traces(2)


def with_a_jvp_of_its_own(function):
    custom = jax.custom_jvp(function)
    custom.defjvps(lambda t, answer, x: t)
    return custom


def with_a_vjp_of_its_own(function):
    custom = jax.custom_vjp(function)
    custom.defvjp(lambda x: (function(x), x), lambda x, g: (g,))
    return custom


def while_positive(function):
    def call(x):
        return jax.lax.while_loop(lambda y: y > 0, lambda y: function(y) - 2, x)

    return call


# What a body may call a convolution through.
WAYS = {
    "directly": lambda f: f,
    "jit": jax.jit,
    "grad": jax.grad,
    "checkpoint": jax.checkpoint,
    "gradient of a checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "custom_jvp": with_a_jvp_of_its_own,
    "custom_vjp": with_a_vjp_of_its_own,
    "cond": lambda f: lambda x: jax.lax.cond(x > 0, f, jnp.sin, x),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, None, 2)[0],
    "while_loop": while_positive,
    "vmap of a jit": lambda f: lambda x: jax.vmap(jax.jit(f))(x[None])[0],
    "repeat": lambda f: lambda x: _loop.repeat(lambda i, c: f(c), x, 0, 3),
}


def fives(function):
    return jax.jit(lambda x: _loop.repeat(lambda i, c: _loop.now(function(c)), x, 0, 5))


@pytest.mark.parametrize(
    ("platform", "way"),
    each(
        [(platform, way) for platform in ("cpu", "cuda", "tpu") for way in WAYS],
        [*(("cpu", way) for way in WAYS), ("cuda", "repeat")],
    ),
)
def test_straight_line_code_around_a_convolution_on_cpus(platform, way):
    """Five copies of the body, and not one in a loop."""

    def program(function):
        exported = jax.export.export(fives(WAYS[way](function)), platforms=[platform])
        return exported(jnp.float32(1.0)).mlir_module()

    with_, without = program(convolved), program(jnp.sin)
    own = {"scan": 1, "while_loop": 1, "repeat": 1}.get(way, 0)
    if (
        platform == "cpu" and way == "repeat"
    ):  # straight-line code in straight-line code
        assert with_.count("stablehlo.while") == 0
    elif platform == "cpu":
        assert with_.count("stablehlo.while") == own
    else:
        assert with_.count("stablehlo.while") == 1 + own
    assert without.count("stablehlo.while") == 1 + own
    assert ('inlineable = "false"' in with_) == (platform == "cpu")


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_two_repetitions_are_no_loop_on_cpus(platform):
    """Where straight-line code of two takes less memory."""
    twice = jax.jit(lambda x: _loop.repeat(lambda i, c: jnp.sin(c), x, 0, 2))
    module = jax.export.export(twice, platforms=[platform])(1.0).mlir_module()
    assert module.count("stablehlo.while") == (platform != "cpu")


def test_one_repetition_needs_no_loop():
    for function in (jnp.sin, convolved):
        one = jax.jit(
            lambda x, f=function: _loop.repeat(lambda i, c: f(c), x, 0, 1)
        ).lower(1.0)
        assert "while" not in one.as_text()


def tanh_of_a_product(x):
    return jnp.tanh(x @ x)


def tanh_of_a_convolution(x):
    return jnp.tanh(jax.lax.conv(x[None, None], x[None, None, :3, :3], (1, 1), "SAME"))[
        0, 0
    ]


@pytest.mark.parametrize("function", [tanh_of_a_product, tanh_of_a_convolution])
def test_memory_of_a_loop_does_not_grow_with_its_length(function):
    """Each repetition makes a large array and adds it up; it is freed before the next,
    for which straight-line code needs `now`."""

    def temporary(repetitions):
        def body(i, carry):
            x, total = carry
            y = function(x)
            return y, _loop.now(total + jnp.exp(y))

        def run(x):
            return _loop.repeat(body, (x, jnp.zeros_like(x)), 0, repetitions)[1]

        compiled = jax.jit(run).lower(jnp.ones((256, 256))).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporary(12) <= temporary(4)
