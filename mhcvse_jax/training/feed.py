"""Where training batches come from: read by the host one by one, or gathered on the devices several at a time."""

import concurrent.futures
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mhcvse_jax.data import batches
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.mesh import own_rows, put_batch, replicated
from mhcvse_jax.training import resident
from mhcvse_jax.training.resident import Placement
from mhcvse_jax.training.step import Metrics, StepParts, TrainState, make_resident_steps, make_train_step

SLOW_SECONDS = 10.0
"""A dispatch that takes longer is made of fewer steps from then on: a stop waits for those that are handed over."""


class FeedSettings(NamedTuple):
    """How training batches are made and read."""

    batch_size: int
    seed: int  # of their order
    caption_lengths: Sequence[int]  # that captions may be padded to
    training_label: str  # of a caption: "image" or "caption"
    placement: str  # of the features: "auto", "device" or "host"
    dtype: str  # of features that lie on the devices
    steps_per_dispatch: int  # there
    threads: int  # that read
    prefetch: int  # batches read ahead


class Feed(Protocol):
    """Takes the steps of an epoch. A step's batch depends on seed, epoch and step alone, whatever the feed."""

    on_devices: bool  # whether the features lie there

    def epoch(
        self, state: TrainState, epoch: int, first_step: int
    ) -> Iterator[tuple[TrainState, int, dict[str, jax.Array]]]:
        """Yields (state, steps taken, their metrics) from a step of the epoch on. The given state is donated.

        Metrics are <float32>[] where one step was taken, else <float32>[at least the steps taken].
        """
        ...


class HostFeed:
    """Reads batches ahead of the device, from memory-mapped files; each is copied to it."""

    on_devices = False

    def __init__(
        self,
        settings: FeedSettings,
        split: Split,
        mesh: Mesh,
        step: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    ):
        """Takes what `make_train_step` returned."""
        self._settings, self._split, self._mesh, self._step = settings, split, mesh, step
        self.caption_lengths = _training_lengths(settings, split)

    def epoch(self, state: TrainState, epoch: int, first_step: int) -> Iterator[tuple[TrainState, int, Metrics]]:
        """See `Feed`."""
        settings = self._settings
        host_batches = batches.training_batches(
            self._split,
            batch_size=settings.batch_size,
            caption_lengths=self.caption_lengths,
            training_label=settings.training_label,
            seed=settings.seed,
            epoch=epoch,
            first_step=first_step,
            threads=settings.threads,
            prefetch=settings.prefetch,
            rows=own_rows(self._mesh, settings.batch_size),
        )
        for batch in host_batches:
            state, metrics = self._step(state, put_batch(batch, self._mesh, settings.batch_size))
            yield state, 1, metrics


class ResidentFeed:
    """Gathers batches on the devices, which hold the whole split; the host sends indices for several steps at once."""

    on_devices = True

    def __init__(
        self,
        settings: FeedSettings,
        split: Split,
        data: resident.ResidentSplit,
        caption_lengths: tuple[int, ...],
        mesh: Mesh,
        steps: Callable[..., tuple[TrainState, Metrics]],
    ):
        """Takes the split as it was placed, the lengths that occur, and the compiled steps."""
        self._settings, self._split, self._data, self._mesh, self._steps = settings, split, data, mesh, steps
        self._caption_lengths = caption_lengths

    def epoch(self, state: TrainState, epoch: int, first_step: int) -> Iterator[tuple[TrainState, int, Metrics]]:
        """See `Feed`."""
        most, size = self._settings.steps_per_dispatch, self._settings.batch_size
        captions, lengths = batches.epoch_plan(
            self._split, self._caption_lengths, batch_size=size, seed=self._settings.seed, epoch=epoch
        )
        index = np.searchsorted(self._caption_lengths, lengths).astype(np.int32)
        everywhere = replicated(self._mesh)
        start, at_once = first_step, most
        while start < len(captions):
            began = time.monotonic()
            num_steps = min(at_once, len(captions) - start)
            chosen, chosen_index = np.zeros((most, size), np.int32), np.zeros(most, np.int32)
            chosen[:num_steps] = captions[start : start + num_steps]
            chosen_index[:num_steps] = index[start : start + num_steps]
            sent = jax.device_put((chosen, chosen_index, np.int32(num_steps)), everywhere)
            state, metrics = self._steps(state, self._data, *sent)
            yield state, num_steps, metrics  # who takes them waits for those before
            start += num_steps
            if not distributed.is_several():  # several processes have to hand over the same steps
                at_once = _steps_at_once(at_once, most, time.monotonic() - began)


def _steps_at_once(now: int, most: int, seconds: float) -> int:
    """Returns how many steps to dispatch next, given how long `now` of them took."""
    if seconds > SLOW_SECONDS:
        return max(now // 2, 1)
    return min(2 * now, most) if seconds < SLOW_SECONDS / 4 else now


def make_feed(
    parts: StepParts,
    settings: FeedSettings,
    split: Split,
    state: TrainState,
    *,
    were_on_devices: bool | None = None,
) -> Feed:
    """Returns the feed that `settings.placement` asks for, and prints which; features are read during compilation.

    Args:
      parts: what a step is made of.
      settings: how batches are made and read.
      split: the split that is learned.
      state: a state like those that it will be given.
      were_on_devices: whether this run had its features there before; None at its first start.

    Raises:
      InputError: features are to be on the devices and do not fit, or a feature is not finite.
    """
    # One choice for all: devices of unlike memory would take unlike ones, and wait for each other for ever.
    free_each, num_bytes = resident.free_each(parts.mesh), resident.features_bytes(split, settings.dtype)
    choice = resident.Choice(
        *distributed.from_first(
            lambda: resident.choose_placement(
                settings.placement, num_bytes, parts.mesh, free_each, were_on_devices=were_on_devices
            )
        )
    )
    size = f"{num_bytes / 1e9:.2f} GB in {settings.dtype}, {choice.reason}"
    if choice.placement != "host":
        print(f"features  on the devices, {choice.placement}: {size}", flush=True)
        return make_resident_feed(parts, settings, split, state, choice.placement)
    feed = HostFeed(settings, split, parts.mesh, make_train_step(parts))
    print(f"features  read from the host as steps need them: {size}", flush=True)
    print(f"captions  padded to {', '.join(map(str, feed.caption_lengths))}", flush=True)
    return feed


def make_resident_feed(
    parts: StepParts, settings: FeedSettings, split: Split, state: TrainState, placement: Placement
) -> ResidentFeed:
    """Returns the feed of a split that is "replicated" or "sharded"; prints what it takes. See `make_feed`."""
    started = time.monotonic()
    mesh, dtype = parts.mesh, settings.dtype
    caption_lengths = _training_lengths(settings, split)
    steps = make_resident_steps(parts, placement=placement, caption_lengths=caption_lengths)
    most, everywhere = settings.steps_per_dispatch, replicated(mesh)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state)
    sent = (
        jax.ShapeDtypeStruct((most, settings.batch_size), jnp.int32, sharding=everywhere),
        jax.ShapeDtypeStruct((most,), jnp.int32, sharding=everywhere),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
    )
    reading = {
        "dtype": dtype,
        "training_label": settings.training_label,
        "threads": settings.threads,
        "prefetch": settings.prefetch,
    }
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        placing = executor.submit(resident.place, split, mesh, placement, **reading)
        compiled = steps.lower(like, resident.shapes(split, mesh, placement, dtype), *sent).compile()
        data = placing.result()
    lengths = ", ".join(map(str, caption_lengths))
    seconds = time.monotonic() - started
    print(f"captions  padded to {lengths}; features read and steps compiled in {seconds:.1f} s", flush=True)
    return ResidentFeed(settings, split, data, caption_lengths, mesh, compiled)


def _training_lengths(settings: FeedSettings, split: Split) -> tuple[int, ...]:
    return batches.training_lengths(split, settings.caption_lengths, batch_size=settings.batch_size, seed=settings.seed)
