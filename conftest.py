"""Strictness for every test and every example in a docstring or a page."""

import gc
import os

# Eight devices on one CPU, for the tests of sharding. Must be set before JAX starts.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

from hypothesis import settings
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A new tree, k or α is a new compilation, hence no deadline.
settings.register_profile("quick", max_examples=10, derandomize=True, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("quick")


def pytest_configure(config):
    """Compiles faster, and worse, but in the thorough profile.

    Most of the time of these tests is XLA's. Programs that are run as users run them,
    in processes of their own, are compiled as users compile them.
    """
    if config.getoption("--hypothesis-profile") == "thorough":
        return
    fast = ["--xla_cpu_parallel_codegen_split_count=1"]
    if jax.__version_info__ < (0, 11):  # which XLA has no choice of emitters any more
        fast.append("--xla_cpu_use_fusion_emitters=false")
    inherited = os.environ["XLA_FLAGS"]
    os.environ["XLA_FLAGS"] = " ".join([inherited, *fast])
    jax.devices()  # XLA reads its flags once, here
    os.environ["XLA_FLAGS"] = inherited
    # An accelerator is to show what it does for users.
    on_cpu = jax.default_backend() == "cpu"
    jax.config.update("jax_disable_most_optimizations", on_cpu)


def pytest_collection_finish():
    """Spares the collector all modules and tests, and what JAX makes as it traces.

    A fifth of the time of these tests was in looking for garbage among them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@pytest.fixture
def x64():
    """Turns float64 on for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def standard_promotion():
    """For Flax's layers, which aren't written for strictness."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
