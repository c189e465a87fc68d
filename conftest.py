"""Strictness for every test and every example in a docstring or a page."""

import os

# Eight devices on one CPU, for the tests of sharding. Must be set before JAX starts.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Turns float64 on for one test."""
    with jax.enable_x64(True):
        yield
