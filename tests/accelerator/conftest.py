"""What an accelerator must show, whatever else is installed beside pytest and chex.

    pytest -m accelerator

The job `correct` of benchmarks.accelerator runs these, without the conftest.py of the
other tests, whose rules are for CPUs.
"""

import jax
import pytest


@pytest.fixture(autouse=True)
def as_users_do():
    """Promotion as it is by default, and float32 that isn't TF32."""
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.default_matmul_precision("float32"),
    ):
        yield


@pytest.fixture
def x64():
    """Turns float64 on for one test."""
    with jax.enable_x64(True):
        yield
