"""How steps come by their batches: read by the host one by one, or gathered on the devices, several at a time."""

import concurrent.futures
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from mhcvse_jax.config import Config
from mhcvse_jax.data import batches
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.mesh import own_rows, put_batch, replicated
from mhcvse_jax.layers.concept_gcn import ConceptGraph
from mhcvse_jax.models import Model
from mhcvse_jax.training import resident
from mhcvse_jax.training.step import LossSettings, Metrics, TrainState, make_resident_steps, make_train_step


class Feed(Protocol):
    """Takes the steps of an epoch. The batch of a step is a function of seed, epoch and step, whatever the feed."""

    def epoch(
        self, state: TrainState, epoch: int, first_step: int
    ) -> Iterator[tuple[TrainState, int, dict[str, jax.Array]]]:
        """Yields (state, steps taken, their metrics) from a step of the epoch on; the state given is used up.

        Metrics are <float32>[] where one step was taken, else <float32>[at least the steps taken].
        """
        ...


class HostFeed:
    """Reads batches ahead of the device, from memory-mapped files; each is copied to it."""

    def __init__(
        self, config: Config, split: Split, mesh: Mesh, step: Callable[[TrainState, Any], tuple[TrainState, Metrics]]
    ):
        """Takes what `make_train_step` returned."""
        self._config, self._split, self._mesh, self._step = config, split, mesh, step
        self.caption_lengths = _training_lengths(config, split)

    def epoch(self, state: TrainState, epoch: int, first_step: int) -> Iterator[tuple[TrainState, int, Metrics]]:
        """See `Feed`."""
        config = self._config
        host_batches = batches.training_batches(
            self._split,
            batch_size=config.batch_size,
            caption_lengths=self.caption_lengths,
            training_label=config.concepts.training_label,
            seed=config.seed,
            epoch=epoch,
            first_step=first_step,
            threads=config.data.read_threads,
            prefetch=config.data.prefetch_batches,
            rows=own_rows(self._mesh, config.batch_size),
        )
        for batch in host_batches:
            state, metrics = self._step(state, put_batch(batch, self._mesh, config.batch_size))
            yield state, 1, metrics


class ResidentFeed:
    """Gathers batches on the devices, which hold the whole split; the host sends indices for several steps at once."""

    def __init__(
        self,
        config: Config,
        split: Split,
        data: resident.ResidentSplit,
        caption_lengths: tuple[int, ...],
        mesh: Mesh,
        steps: Callable[..., tuple[TrainState, Metrics]],
    ):
        """Takes the split as it was placed, the lengths that occur, and the compiled steps."""
        self._config, self._split, self._data, self._mesh, self._steps = config, split, data, mesh, steps
        self._caption_lengths = caption_lengths

    def epoch(self, state: TrainState, epoch: int, first_step: int) -> Iterator[tuple[TrainState, int, Metrics]]:
        """See `Feed`."""
        config = self._config
        most, size = config.steps_per_dispatch, config.batch_size
        captions, lengths = batches.epoch_plan(
            self._split, self._caption_lengths, batch_size=size, seed=config.seed, epoch=epoch
        )
        index = np.searchsorted(self._caption_lengths, lengths).astype(np.int32)
        everywhere = replicated(self._mesh)
        for start in range(first_step, len(captions), most):
            num_steps = min(most, len(captions) - start)
            chosen, chosen_index = np.zeros((most, size), np.int32), np.zeros(most, np.int32)
            chosen[:num_steps] = captions[start : start + num_steps]
            chosen_index[:num_steps] = index[start : start + num_steps]
            sent = jax.device_put((chosen, chosen_index, np.int32(num_steps)), everywhere)
            state, metrics = self._steps(state, self._data, *sent)
            yield state, num_steps, metrics


def make_feed(
    config: Config,
    split: Split,
    state: TrainState,
    mesh: Mesh,
    *,
    model: Model,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    graph: ConceptGraph,
    settings: LossSettings,
) -> Feed:
    """Returns the feed that `config.data.placement` asks for, and prints which; features are read while it compiles.

    Args:
      config: the whole configuration.
      split: what is learnt.
      state: one like those that it will be given.
      mesh: the devices.
      model: the model.
      optimizer: what `make_optimizer` returned.
      schedule: the rate by step.
      graph: the concept graph.
      settings: of the loss.

    Raises:
      InputError: features are to be on the devices, and do not fit, or one is not finite.
    """
    # One choice for all: devices of unlike memory would take unlike ones, and wait for each other for ever.
    placement = distributed.from_first(lambda: resident.choose_placement(config, split, mesh))
    if placement == "host":
        feed = HostFeed(config, split, mesh, make_train_step(model, optimizer, schedule, graph, settings, mesh))
        print(
            f"features  read from the host as steps need them; captions padded to "
            f"{', '.join(map(str, feed.caption_lengths))}",
            flush=True,
        )
        return feed
    return make_resident_feed(
        config,
        split,
        state,
        mesh,
        placement,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        graph=graph,
        settings=settings,
    )


def make_resident_feed(
    config: Config,
    split: Split,
    state: TrainState,
    mesh: Mesh,
    placement: str,
    **parts: Any,
) -> ResidentFeed:
    """Returns the feed of a split that is "replicated" or "sharded"; prints what it takes. See `make_feed`."""
    started = time.monotonic()
    caption_lengths = _training_lengths(config, split)
    steps = make_resident_steps(**parts, mesh=mesh, placement=placement, caption_lengths=caption_lengths)
    most, everywhere = config.steps_per_dispatch, replicated(mesh)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state)
    sent = (
        jax.ShapeDtypeStruct((most, config.batch_size), jnp.int32, sharding=everywhere),
        jax.ShapeDtypeStruct((most,), jnp.int32, sharding=everywhere),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
    )
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        placing = executor.submit(resident.place, config, split, mesh, placement)
        compiled = steps.lower(like, resident.shapes(config, split, mesh, placement), *sent).compile()
        data = placing.result()
    print(
        f"features  on the devices, {placement}: {resident.features_bytes(config, split) / 1e9:.2f} GB in "
        f"{config.compute_dtype}; captions padded to {', '.join(map(str, caption_lengths))}; read and compiled in "
        f"{time.monotonic() - started:.1f} s",
        flush=True,
    )
    return ResidentFeed(config, split, data, caption_lengths, mesh, compiled)


def _training_lengths(config: Config, split: Split) -> tuple[int, ...]:
    return batches.training_lengths(split, config.data.caption_lengths, batch_size=config.batch_size, seed=config.seed)
