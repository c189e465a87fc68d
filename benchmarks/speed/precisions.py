"""The precisions that speed is measured in.

Networks keep their parameters in float32 throughout. A GPU multiplies float32 as TF32
unless it is asked not to, so that both have names here; the CPU has no TF32.
"""

from typing import Any
from typing import Literal
from typing import NamedTuple

import jax
import jax.numpy as jnp

Precision = Literal["fp32", "tf32", "bf16"]


class Computation(NamedTuple):
    """How a network computes.

    Attributes:
      dtype: of its activations.
      multiplication: what `jax.default_matmul_precision` wants.
    """

    dtype: Any
    multiplication: str


PRECISIONS: dict[Precision, Computation] = {
    "fp32": Computation(jnp.float32, "float32"),
    "tf32": Computation(jnp.float32, "tensorfloat32"),
    "bf16": Computation(jnp.bfloat16, "default"),
}


def here() -> tuple[Precision, ...]:
    """The precisions that this device has."""
    return tuple(PRECISIONS) if jax.default_backend() == "gpu" else ("fp32", "bf16")
