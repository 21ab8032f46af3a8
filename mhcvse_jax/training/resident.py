"""A training split in device memory: batches are gathered there by index, and nothing is copied per step."""

import collections
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mhcvse_jax.data import batches
from mhcvse_jax.data.batches import Batch
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.read_ahead import read_ahead
from mhcvse_jax.data.regions import count_regions
from mhcvse_jax.data.text import PAD, EncodedCaptions
from mhcvse_jax.devices import distributed, memory
from mhcvse_jax.devices.mesh import by_batch, replicated
from mhcvse_jax.errors import InputError
from mhcvse_jax.layers.captions import Captions

Placement: TypeAlias = Literal["host", "replicated", "sharded"]
"""Where features are: with the host, whole on every device, or split over the devices by picture."""

SHARE_OF_MEMORY = 0.5
"""Fraction of what a device may hold that features use at most: the rest is for the model, the steps, the test."""
CHUNK_BYTES = 64 * 2**20
"""Bytes of features that are read and copied at once."""


class ResidentSplit(NamedTuple):
    """A split to gather batches from. N pictures (sharded: padded to a multiple of the devices), T captions."""

    regions: jax.Array  # <dtype>[N, regions, features]
    num_regions: jax.Array | None  # <int32>[N] how many of these each picture has; None: all
    tokens: EncodedCaptions  # [T]
    labels: jax.Array  # <bool>[T, C] as training shows them
    image_of_caption: jax.Array  # <int32>[T]


class Choice(NamedTuple):
    """Where features go, and why, in words that follow their size."""

    placement: Placement
    reason: str


def choose_placement(
    wanted: str, num_bytes: int, mesh: Mesh, free_each: int | None, *, were_on_devices: bool | None = None
) -> Choice:
    """Returns where the features go: "host", "replicated" on every device, or "sharded" over them by picture.

    Args:
      wanted: "host", "device", or "auto": on the devices if they take at most `SHARE_OF_MEMORY` of what each may
        hold.
      num_bytes: what the features take.
      mesh: the devices.
      free_each: bytes that each may hold, as `free_each` returns them; None if that is unknown.
      were_on_devices: whether this run had them there before; None at its first start. Host and devices add float32
        numbers in different orders, so "auto" does not go back to the devices.

    Raises:
      InputError: they are to be on the devices, which are not CPUs, and do not fit even when sharded.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    if wanted == "host":
        return Choice("host", "as config.data.placement says")
    if wanted == "auto" and were_on_devices is False:
        return Choice("host", "as the run began")
    if free_each is None:
        return Choice("host", "as the free memory is unknown") if wanted == "auto" else Choice("replicated", "as asked")
    whose = "of a device" if not on_cpu else "free for each device" if mesh.size > 1 else "free"
    half = f"half of the {free_each / 1e9:.1f} GB {whose}"
    if num_bytes <= SHARE_OF_MEMORY * free_each:
        return Choice("replicated", f"at most {half}")
    if num_bytes / mesh.size <= SHARE_OF_MEMORY * free_each:
        return Choice("sharded", f"a device's part is at most {half}")
    if wanted == "auto":
        return Choice("host", f"more than {half}")
    if on_cpu:  # what is free there changes, and its user may know better
        return Choice("sharded" if mesh.size > 1 else "replicated", f"as asked, though more than {half}")
    raise InputError(
        f"config.data.placement is 'device', but the features take {num_bytes / 1e9:.1f} GB; expected at most "
        f"{SHARE_OF_MEMORY:.0%} of the {mesh.size} devices' {free_each / 1e9:.1f} GB each, or "
        "config.data.placement=host"
    )


def features_bytes(split: Split, dtype: str) -> int:
    """Returns the size of a split's features in a type."""
    return int(np.prod(split.regions.shape, dtype=np.int64)) * jnp.dtype(dtype).itemsize


def free_each(mesh: Mesh) -> int | None:
    """Returns the bytes that each device of a mesh may hold: the least of all. All processes must call this.

    Of an accelerator it is what the device can hand out; of CPUs, their part of the memory that is free on their
    machine. None where the system does not say.
    """
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        sharing, mine = memory.machine(), memory.free_on_host()
    else:
        sharing, mine = None, (device.memory_stats() or {}).get("bytes_limit")
    report: tuple[str | None, int, int | None] = (sharing, len(mesh.local_devices), mine)
    reports = distributed.from_all(report)
    devices_of: dict[str | None, int] = collections.Counter()
    for machine, num_devices, _ in reports:
        devices_of[machine] += num_devices
    each = []
    for machine, _, free in reports:
        if free is None:
            return None
        each.append(free if machine is None else free // devices_of[machine])
    return min(each)


def place(
    split: Split, mesh: Mesh, placement: Placement, *, dtype: str, training_label: str, threads: int, prefetch: int
) -> ResidentSplit:
    """Returns a split on the devices; reads each picture once, in chunks, so that the host never holds them all.

    Args:
      split: what is placed.
      mesh: the devices.
      placement: "replicated" or "sharded".
      dtype: the type of the layers' arithmetic: they would round the features to it at every step.
      training_label: where a caption's label comes from: "image" or "caption".
      threads: the number of threads that read.
      prefetch: chunks read ahead, four at most.

    Raises:
      InputError: a feature is not finite, or a file is damaged.
    """
    caption_labels = training_label == "caption"
    labels = split.caption_labels if caption_labels else split.image_labels[split.image_of_caption]
    captions = (split.tokens, labels, split.image_of_caption)
    regions = _place_regions(split, mesh, placement, dtype=dtype, threads=threads, prefetch=min(prefetch, 4))
    num_regions = split.num_regions
    if num_regions is None and split.zero_regions_are_padding:
        num_regions = jax.jit(count_regions, out_shardings=replicated(mesh))(regions)
    return ResidentSplit(regions, *jax.device_put((num_regions, *captions), replicated(mesh)))


def shapes(split: Split, mesh: Mesh, placement: Placement, dtype: str) -> Any:
    """Returns the ResidentSplit of shapes of what `place` returns, to compile for while it is read."""
    everywhere = replicated(mesh)

    def like(array: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=everywhere)

    regions = jax.ShapeDtypeStruct(
        (_rows(split, mesh, placement), *split.regions.shape[1:]),
        jnp.dtype(dtype),
        sharding=by_batch(mesh) if placement == "sharded" else everywhere,
    )
    num_regions = split.num_regions
    if num_regions is None and split.zero_regions_are_padding:
        num_regions = np.empty(len(regions), np.int32)
    others = (num_regions, split.tokens, split.caption_labels, split.image_of_caption)
    return ResidentSplit(regions, *jax.tree.map(like, others))  # pyright: ignore[reportArgumentType]


def gather_regions(data: ResidentSplit, images: jax.Array, mesh: Mesh, placement: Placement) -> jax.Array:
    """Returns <dtype>[batch, regions, features] of these pictures, split over the devices; for use inside a step.

    Where features are sharded each device looks up all of a batch's pictures among its own, and the sum over the
    devices, of which one alone has a picture, goes to the device that needs it: batch * regions * features values
    cross the link between the devices, and the batch is the one of any other placement.
    """
    if placement == "replicated":
        return jax.lax.with_sharding_constraint(data.regions[images], by_batch(mesh))

    def look_up(regions: jax.Array, images: jax.Array) -> jax.Array:
        row = images - jax.lax.axis_index("data") * len(regions)
        here = (row >= 0) & (row < len(regions))
        found = jnp.where(here[:, None, None], regions[jnp.where(here, row, 0)], 0)
        return jax.lax.psum_scatter(found, "data", scatter_dimension=0, tiled=True)

    split, everywhere = PartitionSpec("data"), PartitionSpec()
    return jax.shard_map(look_up, mesh=mesh, in_specs=(split, everywhere), out_specs=split)(data.regions, images)


def gather_captions(data: ResidentSplit, captions: jax.Array, regions: jax.Array, length: int, mesh: Mesh) -> Batch:
    """Returns the batch of these captions, padded to `length` tokens, with its pictures' regions, split likewise."""
    captions = jax.lax.with_sharding_constraint(captions, by_batch(mesh))
    ids, starts, lengths = data.tokens.ids, data.tokens.starts[captions], data.tokens.lengths[captions]
    places = jnp.arange(length)
    is_token = places < lengths[:, None]
    image_index = data.image_of_caption[captions]
    tokens = jnp.where(is_token, ids[jnp.where(is_token, starts[:, None] + places, 0)], PAD)
    return Batch(
        regions=regions,  # pyright: ignore[reportArgumentType]: an array of the device
        captions=Captions(tokens, lengths, labels=data.labels[captions]),
        image_index=image_index,  # pyright: ignore[reportArgumentType]
        num_regions=None if data.num_regions is None else data.num_regions[image_index],  # pyright: ignore[reportArgumentType]
    )


def _rows(split: Split, mesh: Mesh, placement: Placement) -> int:
    return -(-split.num_images // mesh.size) * mesh.size if placement == "sharded" else split.num_images


def _place_regions(
    split: Split, mesh: Mesh, placement: Placement, *, dtype: str, threads: int, prefetch: int
) -> jax.Array:
    rows = _rows(split, mesh, placement)
    shape = (rows, *split.regions.shape[1:])
    sharding = by_batch(mesh) if placement == "sharded" else replicated(mesh)
    holders: dict[int, list[Any]] = {}  # devices by the first row that they hold
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        holders.setdefault((index or (slice(None),))[0].start or 0, []).append(device)
    rows_each = rows // mesh.size if placement == "sharded" else rows
    size = max(1, min(rows_each, CHUNK_BYTES // (4 * int(np.prod(shape[1:])))))
    # The last chunk overlaps the one before: one shape, one compilation.
    chunks = [(first, min(start, rows_each - size)) for first in sorted(holders) for start in range(0, rows_each, size)]

    def read(number: int) -> np.ndarray:
        first, start = chunks[number]
        wanted = np.minimum(np.arange(first + start, first + start + size), split.num_images - 1)
        return batches.read_regions(split, wanted)[0]

    parts = {
        device: jnp.zeros((rows_each, *shape[1:]), dtype, device=device)
        for devices in holders.values()
        for device in devices
    }
    chunks_read = read_ahead(read, len(chunks), threads=threads, prefetch=prefetch)
    for (first, start), chunk in zip(chunks, chunks_read, strict=True):
        for device in holders[first]:
            parts[device] = _write(parts[device], jax.device_put(chunk, device), start)
            jax.block_until_ready(parts[device])  # else chunks would queue up in the host's memory
    return jax.make_array_from_single_device_arrays(shape, sharding, [parts[d] for d in parts])


@jax.jit(donate_argnums=0)
def _write(table: jax.Array, rows: jax.Array, start: int) -> jax.Array:
    return jax.lax.dynamic_update_slice(table, rows.astype(table.dtype), (start, 0, 0))
