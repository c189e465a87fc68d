"""What several of these benchmarks take as flags: networks, and precisions."""

from typing import Annotated

from pydantic import AfterValidator

from benchmarks.speed.networks import NAMES
from benchmarks.speed.precisions import here
from benchmarks.speed.precisions import Precision
from examples.trainer.command import among
from examples.trainer.command import Several


def _is_here(precision: Precision) -> Precision:
    if precision not in here():
        raise ValueError(f"must be among {', '.join(here())} on this device")
    return precision


Names = Several[Annotated[str, among(NAMES)]]
# Any that this device has.
Precisions = Several[Annotated[Precision, AfterValidator(_is_here)]]
