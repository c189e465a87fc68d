"""CIFAR-10 in two files of 50 MiB each, lossless, for machines without a network.

    python -m benchmarks.accelerator.cifar --data-dir DIR --output data

Each file holds every other image of both splits, so one file alone is half of CIFAR-10
and can be sent where both don't fit. Reading them needs only NumPy and the standard
library.

Each pixel is stored as the difference from its prediction by the pixels to its left and
above; green's difference is subtracted from red's and blue's. Huffman codes compress
the differences. A file is one line of JSON that describes it, and the codes.
"""

import argparse
import hashlib
import json
from pathlib import Path
import sys
from typing import Any
from typing import NamedTuple
import zlib

import numpy as np

PARTS = 2
PATTERN = "cifar10.part-*.bin"
KEYS = ("x_train", "y_train", "x_test", "y_test")


class Arrays(NamedTuple):
    """Images, uint8 (n, height, width, 3), and labels, uint8 (n,), of two splits."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def digest(self) -> str:
        """SHA-256 of all that the arrays hold."""
        found = hashlib.sha256()
        for array in self:
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def pack(arrays: Arrays, folder: Path) -> list[Path]:
    """Writes all parts.

    Args:
      arrays: what to write.
      folder: where to; it is made if missing.

    Returns:
      The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for part in range(PARTS):
        held = Arrays(*(array[part::PARTS] for array in arrays))
        codes = encode(held)
        about = {
            "part": part,
            "parts": PARTS,
            "shapes": [array.shape for array in held],
            "sha256": held.digest,
        }
        path = folder / f"cifar10.part-{part + 1}-of-{PARTS}.bin"
        path.write_bytes(json.dumps(about).encode() + b"\n" + codes)
        paths.append(path)
    return paths


def unpack(folder: Path) -> tuple[Arrays, int]:
    """Reads the parts that are in a folder.

    Returns:
      Their examples, in the original order, and the number of parts that were there.

    Raises:
      FileNotFoundError: if there is none.
      OSError: if one is damaged.
    """
    paths = sorted(folder.glob(PATTERN))
    if not paths:
        raise FileNotFoundError(
            f"{folder} must hold {PATTERN}, which python -m "
            "benchmarks.accelerator.cifar makes; there is none"
        )
    parts = [read(path) for path in paths]
    if len(parts) == 1:
        return parts[0], 1
    return Arrays(*(interleave(*arrays) for arrays in zip(*parts, strict=True))), PARTS


def interleave(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Interleaves the rows of two arrays."""
    joined = np.empty((len(first) + len(second), *first.shape[1:]), first.dtype)
    joined[0::2], joined[1::2] = first, second
    return joined


def read(path: Path) -> Arrays:
    """One part.

    Raises:
      OSError: if it isn't what was written.
    """
    head, _, codes = path.read_bytes().partition(b"\n")
    try:
        about = json.loads(head)
        arrays = decode(zlib.decompress(codes, -zlib.MAX_WBITS), about["shapes"])
        whole = arrays.digest == about["sha256"]
    except (ValueError, LookupError, TypeError, zlib.error) as error:
        raise OSError(f"{path} is no part of CIFAR-10: {error!r}") from error
    if not whole:
        raise OSError(f"{path} is damaged: its images don't have the SHA-256 it states")
    return arrays


def encode(arrays: Arrays) -> bytes:
    """Encodes in Huffman codes, for `decode`."""
    planes = b"".join(
        surprises(arrays[split]).tobytes() + arrays[split + 1].tobytes()
        for split in (0, 2)
    )
    # What is predicted has no repetitions that a search could find.
    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(planes) + coder.flush()


def decode(planes: bytes, shapes: list[list[int]]) -> Arrays:
    """The arrays of these shapes."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    flat = np.split(np.frombuffer(planes, np.uint8), np.cumsum(sizes)[:-1])
    found = []
    for array, shape in zip(flat, shapes, strict=True):
        is_image = len(shape) == 4
        found.append(restore(array.reshape(3, *shape[:3])) if is_image else array)
    return Arrays(*found)


def surprises(images: np.ndarray) -> np.ndarray:
    """Prediction errors (3, n, height, width) of images (n, height, width, 3)."""
    padded = np.pad(images, ((0, 0), (1, 0), (1, 0), (0, 0))).astype(np.int16)
    predicted = predict(padded[:, 1:, :-1], padded[:, :-1, 1:], padded[:, :-1, :-1])
    red, green, blue = np.moveaxis(images - predicted.astype(np.uint8), -1, 0)
    return np.stack([red - green, green, blue - green])


def restore(planes: np.ndarray) -> np.ndarray:
    """The images from the planes that `surprises` made of them."""
    red, green, blue = planes
    left_over = np.stack([red + green, green, blue + green])
    _, examples, height, width = left_over.shape
    # Pixel by pixel, each of all images at once, with a border of zeros.
    pixels = np.zeros((height + 1, width + 1, 3, examples), np.uint8)
    left_over = np.ascontiguousarray(left_over.transpose(2, 3, 0, 1))
    for y, x in np.ndindex(height, width):
        around = pixels[y + 1, x], pixels[y, x + 1], pixels[y, x]
        predicted = predict(*(pixel.astype(np.int16) for pixel in around))
        pixels[y + 1, x + 1] = left_over[y, x] + predicted.astype(np.uint8)
    return np.ascontiguousarray(pixels[1:, 1:].transpose(3, 0, 1, 2))


def predict(left: Any, above: Any, corner: Any) -> Any:
    """The median of the two neighbors and of the plane through all three (JPEG-LS)."""
    low, high = np.minimum(left, above), np.maximum(left, above)
    return np.clip(left + above - corner, low, high)


def main(arguments: list[str] | None = None) -> None:
    """Packs CIFAR-10 as TFDS has prepared it."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accelerator.cifar",
        description="Pack CIFAR-10 into two files for machines without a network.",
    )
    parser.add_argument(
        "--data-dir", type=Path, help="folder of datasets that TFDS has prepared"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("data"), help="folder for the two files"
    )
    asked = parser.parse_args(arguments)
    from examples.images import data  # here, since what only reads has no TFDS

    try:
        found = data.load("cifar10", asked.data_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    splits = (array for split in (found.train, found.test) for array in split)
    arrays = Arrays(*(array.astype(np.uint8) for array in splits))
    for path in pack(arrays, asked.output):
        size = path.stat().st_size / 2**20
        print(f"{path}: {size:.1f} MiB, SHA-256 {digest(path)}")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
