"""The devices as a mesh, and how arrays lie on it: the batch is split, all else is replicated."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of one axis, `data`, over the given devices, or all."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec("data"))


def own_rows(mesh: Mesh, size: int) -> slice:
    """Returns the rows of a batch of `size` that lie on devices of this process: all, where it is the only one."""
    if jax.process_count() == 1:
        return slice(0, size)
    shares = by_batch(mesh).addressable_devices_indices_map((size,)).values()
    rows = [share[0].indices(size) for share in shares if share is not None]
    return slice(min(start for start, _, _ in rows), max(stop for _, stop, _ in rows))


def put_batch(batch: Any, mesh: Mesh, size: int) -> Any:
    """Returns a batch of `size`, split over the devices, from the rows that `own_rows` names.

    Args:
      batch: a tree of arrays, each with this process's rows.
      mesh: the devices.
      size: of the batch over all processes.
    """
    sharding = by_batch(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x, (size, *x.shape[1:])), batch)
