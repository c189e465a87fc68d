"""Placement of arrays: on one device, or on the mesh of `--mesh`."""

from collections.abc import Callable
import dataclasses
import json
import math
from typing import Any
from typing import TypeVar

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

Tree = TypeVar("Tree")
AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which part of each array is on which device.

    Attributes:
      mesh: of the axes "data", which shares the batch, and "fsdp", which shares it too,
        and the parameters with it.
    """

    mesh: Mesh

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.mesh.size

    @property
    def everywhere(self) -> NamedSharding:
        """A copy on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def batch(self, axis: int = 0) -> NamedSharding:
        """The examples along an axis split among all devices."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXES))

    def split(self, leaf: Any) -> NamedSharding:
        """The largest axis that allows it split among the devices of "fsdp"."""
        parts = self.mesh.shape["fsdp"]
        axes = [i for i, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or not axes:
            return self.everywhere
        axis = max(axes, key=lambda i: leaf.shape[i])
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, "fsdp"))

    def shapes(self, make: Callable[[], Tree]) -> Tree:
        """Shapes, dtypes and places of a function's results."""

        def place(leaf):
            split = self.split(leaf)
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=split)

        return jax.tree.map(place, jax.eval_shape(make))

    def put(self, array: np.ndarray, sharding: NamedSharding) -> jax.Array:
        """A global array, from a copy that every process has."""
        return jax.make_array_from_callback(
            array.shape, sharding, lambda part: array[part]
        )


def layout(axes: tuple[str, ...]) -> Layout:
    """The layout that `--mesh` names; without it, the first device.

    Raises:
      ValueError: if there are other axes, or they don't use all devices.
    """
    given = " ".join(axes)
    sizes, named = dict.fromkeys(AXES, 1), set()
    for axis in axes:
        name, _, size = axis.partition("=")
        if name not in AXES or not size.isdecimal() or int(size) < 1:
            raise ValueError(
                f"--mesh must look like 'data=8', 'fsdp=8' or 'data=2 fsdp=4'; "
                f"got {given!r}"
            )
        if name in named:
            raise ValueError(f"--mesh must name each axis once; got {given!r}")
        named.add(name)
        sizes[name] = int(size)
    devices = jax.devices() if axes else jax.devices()[:1]
    if not axes and jax.process_count() > 1:
        raise ValueError(
            f"{jax.process_count()} processes need a --mesh, such as "
            f"data={jax.device_count()}"
        )
    if math.prod(sizes.values()) != len(devices):
        raise ValueError(
            f"--mesh must use all {len(devices)} devices, such as "
            f"data={len(devices)}; got {given!r}"
        )
    grid = np.array(devices).reshape(tuple(sizes.values()))
    return Layout(Mesh(grid, AXES))


def join() -> None:
    """Joins the other processes of this run, which JAX finds by the environment.

    Raises:
      ValueError: if nothing says where they are.
    """
    try:
        jax.distributed.initialize()
    except ValueError as error:
        raise ValueError(
            "--distributed is for processes started by Slurm, Open MPI, Kubernetes or "
            f"on the hosts of a TPU; JAX finds none of these here: {error}"
        ) from error


def from_first(function: Callable[[], Any]) -> Any:
    """The result of a function that only the first process calls.

    Args:
      function: returns what JSON holds.

    Raises:
      ValueError, OSError: in all processes, if the function raises one.
    """
    if jax.process_count() == 1:
        return function()
    answer = b""
    if jax.process_index() == 0:
        try:
            sent = {"value": function()}
        except (ValueError, OSError) as error:
            sent = {"error": str(error), "os": isinstance(error, OSError)}
        answer = json.dumps(sent).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(answer))))
    filled = np.frombuffer(answer.ljust(size), np.uint8)
    received = json.loads(multihost_utils.broadcast_one_to_all(filled).tobytes())
    if "error" in received:
        raise (OSError if received["os"] else ValueError)(received["error"])
    return received["value"]
