"""The peak performance of devices, by their vendors' datasheets.

Dense, without sparsity, one chip; products are added up in float32. A precision that a
device lacks has the peak of what takes its place: float32 on a V100 or T4, which have
no bfloat16 and TF32, and six passes of bfloat16 for float32 on a TPU.
"""

from typing import NamedTuple


class Limits(NamedTuple):
    """Limits of a device.

    Attributes:
      bf16: FLOP/s in bfloat16.
      tf32: FLOP/s in TF32.
      fp32: FLOP/s in float32.
      bandwidth: bytes/s of its memory.
    """

    bf16: float
    tf32: float
    fp32: float
    bandwidth: float


def _gpu(bf16: float, tf32: float, fp32: float, bandwidth: float) -> Limits:
    """In TFLOP/s and GB/s."""
    return Limits(bf16 * 1e12, tf32 * 1e12, fp32 * 1e12, bandwidth * 1e9)


def _tpu(bf16: float, bandwidth: float) -> Limits:
    """In TFLOP/s and GB/s."""
    return _gpu(bf16, bf16 / 6, bf16 / 6, bandwidth)


# By JAX's name of the device, or the beginning of it; the longest match counts.
DEVICES: dict[str, Limits] = {
    "NVIDIA H200": _gpu(989, 495, 67, 4800),
    "NVIDIA H100": _gpu(989, 495, 67, 3350),
    "NVIDIA H100 NVL": _gpu(835, 417, 60, 3900),
    "NVIDIA H100 PCIe": _gpu(756, 378, 51, 2000),
    "NVIDIA A100-SXM4-80GB": _gpu(312, 156, 19.5, 2039),
    "NVIDIA A100 80GB PCIe": _gpu(312, 156, 19.5, 1935),
    "NVIDIA A100": _gpu(312, 156, 19.5, 1555),
    "Tesla V100": _gpu(15.7, 15.7, 15.7, 900),
    "NVIDIA L4": _gpu(121, 60, 30.3, 300),
    "Tesla T4": _gpu(8.1, 8.1, 8.1, 300),
    "NVIDIA GeForce RTX 4090": _gpu(165, 83, 83, 1008),
    "TPU v4": _tpu(275, 1200),
    "TPU v5 lite": _tpu(197, 819),
    "TPU v5": _tpu(459, 2765),
    "TPU v5p": _tpu(459, 2765),
    "TPU v6 lite": _tpu(918, 1640),
    "TPU v6e": _tpu(918, 1640),
}
ASSUMED = "NVIDIA H100"  # for estimates where the device has no limits here


def find(kind: str) -> Limits | None:
    """The limits of a device by its kind, as JAX names it; None if unknown."""
    names = [name for name in DEVICES if kind == name or kind.startswith(f"{name} ")]
    names += [name for name in DEVICES if kind.startswith(f"{name}-")]
    return DEVICES[max(names, key=len)] if names else None
