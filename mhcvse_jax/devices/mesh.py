"""The devices as a mesh, and how arrays are placed on it: the batch is split, everything else is replicated."""

import functools
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mhcvse_jax.errors import InputError

NVIDIA_DRIVER = pathlib.Path("/proc/driver/nvidia/version")
ACCELERATORS = ("cuda", "gpu", "rocm", "tpu")
"""What JAX_PLATFORMS may ask for besides the CPU."""


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of one axis, `data`, over the given devices, or all."""
    devices = find_devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def find_devices() -> list[Any]:
    """Returns the devices of all processes; warns if the machine has NVIDIA's driver but they are CPUs.

    Raises:
      InputError: there are none of the kind that JAX_PLATFORMS asks for.
    """
    asked = os.environ.get("JAX_PLATFORMS")
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter, without a word, where a CUDA plugin is missing
        reason = (str(error).splitlines() or ["no plugin for it is installed"])[0]
        jax.config.update("jax_platforms", None)
        found = ", ".join(sorted({device.platform for device in jax.devices()}))
        install = f"install the driver and JAX's wheel for {asked}, or " if asked in ACCELERATORS else ""
        raise InputError(
            f"JAX_PLATFORMS is {asked}, but JAX finds no such devices here ({reason}), only {found}: {install}set "
            f"JAX_PLATFORMS={found}"
        ) from error
    if not asked and devices[0].platform == "cpu" and NVIDIA_DRIVER.exists():
        _warn_of_idle_gpus()
    return devices


@functools.cache  # once
def _warn_of_idle_gpus() -> None:
    print(
        "warning: this machine has NVIDIA's driver, but JAX runs on the CPU: JAX's CUDA wheel is missing or does not "
        "fit the driver (JAX_PLATFORMS=cpu silences this warning)",
        file=sys.stderr,
        flush=True,
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec("data"))


def own_rows(mesh: Mesh, size: int) -> slice:
    """Returns the rows of a batch of `size` that are on this process's devices: all, if it is the only process."""
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
      size: the size of the batch over all processes.
    """
    sharding = by_batch(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x, (size, *x.shape[1:])), batch)
