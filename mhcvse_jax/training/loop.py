"""The training loop: epochs of steps, a validation after each, early stopping, the best checkpoint."""

import collections
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from mhcvse_jax.data.dataset import Split
from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.compilation import Compilations
from mhcvse_jax.devices.interrupt import InterruptRequest
from mhcvse_jax.errors import Interrupted
from mhcvse_jax.evaluation import protocols, result_rows
from mhcvse_jax.terminal.progress import ProgressBar, say
from mhcvse_jax.training.checkpoint import Checkpoints, Progress
from mhcvse_jax.training.feed import Feed
from mhcvse_jax.training.metrics_log import MetricsLog
from mhcvse_jax.training.step import Metrics, TrainState
from mhcvse_jax.training.watches import CollapseWatch, NonFiniteWatch

FETCH_SECONDS = 5.0  # then logged values are fetched, however few there are
IN_FLIGHT = 3  # dispatched, unfinished steps: enough to keep the device busy; a stop waits for them


class LoopSettings(NamedTuple):
    """How long a training lasts, and how often it logs and saves."""

    batch_size: int
    steps_per_epoch: int
    num_epochs: int  # at most
    patience_epochs: int  # without a better one before it stops
    log_every_steps: int
    save_every_minutes: float  # within an epoch
    consensus_weight: float  # of the similarity that is validated


def train(
    settings: LoopSettings,
    state: TrainState,
    progress: Progress,
    *,
    feed: Feed,
    encode: Callable[[Any, Split], protocols.Found],
    dev_split: Split,
    mesh: Mesh,
    checkpoints: Checkpoints,
    collapse_watch: CollapseWatch,
    nonfinite_watch: NonFiniteWatch,
    log: MetricsLog,
    compilations: Compilations,
) -> Progress:
    """Trains, and returns the progress at the end; the best step is in `checkpoints`.

    Continues from `state` and `progress`, also in the middle of an epoch.

    Raises:
      Interrupted: a signal asked to stop; all is saved.
      RunFailedError: a loss is not finite.
    """
    steps = settings.steps_per_epoch
    first_step = int(state.step)
    bar = ProgressBar(
        settings.num_epochs * steps, "step", done=first_step, compiles=True, is_shown=distributed.is_first()
    )
    values = StepValues(
        log,
        bar,
        progress,
        collapse_watch,
        nonfinite_watch,
        batch_size=settings.batch_size,
        every_steps=settings.log_every_steps,
    )
    earlier_seconds, started = progress.train_seconds, time.monotonic()
    saved_at = started

    def save(rsum: float | None = None) -> None:
        nonlocal saved_at
        values.flush(epoch_name)  # which raises where a step was not finite: that is never saved as good
        log.flush()  # a step that is saved is not done again: what was logged up to it has to be there
        saved_at = time.monotonic()
        progress.train_seconds = earlier_seconds + saved_at - started
        checkpoints.save(state, progress, rsum)

    def stop() -> None:
        save()
        checkpoints.wait()
        raise Interrupted

    def is_due() -> bool:
        return distributed.is_first() and time.monotonic() - saved_at > 60 * settings.save_every_minutes

    agreement = distributed.Agreement(mesh)
    step = first_step
    try:
        with InterruptRequest() as interrupt:
            while not is_over(settings, progress):
                epoch = progress.epochs_done
                epoch_name = f"{epoch + 1}/{settings.num_epochs}"
                values.restart_clock()
                for next_state, num_steps, metrics in feed.epoch(state, epoch, step - epoch * steps):
                    state = next_state
                    step += num_steps
                    values.add(step, num_steps, metrics, epoch_name)
                    if step < (epoch + 1) * steps:
                        stop_now, save_now = agreement.at(interrupt.requested, is_due())
                        if stop_now:
                            stop()
                        if save_now:
                            save()
                values.flush(epoch_name)
                rsum = validate(state, encode, dev_split, settings.consensus_weight, epoch_name, step, log)
                if not progress.record(rsum, step):
                    say(
                        f"dev rsum {rsum:.1f}; best {progress.best_rsum:.1f}, "
                        f"not better for {progress.epochs_without_better} of at most {settings.patience_epochs} epochs"
                    )
                save(rsum)
                compiled = compilations.describe_new()
                if compiled:
                    say(compiled)
                if any(agreement.now(interrupt.requested)):
                    checkpoints.wait()
                    raise Interrupted
    finally:
        bar.close()
        log.flush()
    checkpoints.wait()
    return progress


def is_over(settings: LoopSettings, progress: Progress) -> bool:
    """Returns whether all epochs are done, or too many have passed without an improvement."""
    return progress.epochs_done >= settings.num_epochs or progress.epochs_without_better >= settings.patience_epochs


def validate(
    state: TrainState,
    encode: Callable[[Any, Split], protocols.Found],
    split: Split,
    consensus_weight: float,
    epoch_name: str,
    step: int,
    log: MetricsLog,
) -> float:
    """Returns the fused rsum on the dev split; prints the table and logs the recalls of all embeddings."""
    encoded = encode({"params": state.params, "batch_stats": state.batch_stats}, split)
    results = protocols.standard(encoded, split.image_of_caption, consensus_weight=consensus_weight, folds=1)
    rows = result_rows.make(
        results,
        split=split.name,
        protocol="standard",
        folds=1,
        num_images=split.num_images,
        num_captions=split.num_captions,
    )
    say(f"\nepoch {epoch_name}, step {step}")
    result_rows.show(rows)
    for row in rows:
        flat = {f"{way}_{name}": value for way in ("i2t", "t2i") for name, value in row[way].items()}
        log.write(step, flat | {"rsum": row["rsum"]}, kind=f"{split.name}_{row['embedding']}")
    return results["fused"].rsum


class StepValues:
    """Fetches the metrics of many steps from the device at once, and logs each step."""

    def __init__(
        self,
        log: MetricsLog,
        bar: ProgressBar,
        progress: Progress,
        collapse_watch: CollapseWatch,
        nonfinite_watch: NonFiniteWatch,
        *,
        batch_size: int,
        every_steps: int,
    ):
        self._log, self._bar, self._progress = log, bar, progress
        self._collapse_watch, self._nonfinite_watch = collapse_watch, nonfinite_watch
        self._batch_size, self._every = batch_size, every_steps
        self._waiting: collections.deque[tuple[range, Metrics]] = collections.deque()
        self._num_waiting = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Starts measuring the rate; earlier work, such as a validation, does not count."""
        self._since = time.monotonic()

    def add(self, last_step: int, num_steps: int, metrics: Metrics, epoch_name: str) -> None:
        """Takes the metrics of dispatched steps; waits for all but the last few."""
        self._waiting.append((range(last_step - num_steps + 1, last_step + 1), metrics))
        self._num_waiting += num_steps
        in_flight = IN_FLIGHT if num_steps == 1 else 1  # several at once keep it busy by themselves
        if len(self._waiting) > in_flight:
            jax.block_until_ready(self._waiting[-1 - in_flight][1]["loss"])
        if self._num_waiting >= self._every or time.monotonic() - self._since > FETCH_SECONDS:
            self.flush(epoch_name)

    def flush(self, epoch_name: str) -> None:
        """Fetches and logs everything waiting."""
        if not self._waiting:
            return
        steps = [step for steps, _ in self._waiting for step in steps]
        fetched = [
            {name: float(value.flat[i]) for name, value in metrics.items()}
            for steps, metrics in jax.device_get(list(self._waiting))
            for i in range(len(steps))
        ]
        self._waiting.clear()
        self._num_waiting = 0
        now = time.monotonic()
        rate = len(steps) * self._batch_size / (now - self._since)
        self._since = now
        values: dict[str, float] = {}
        for step, values in zip(steps, fetched, strict=True):
            self._log.write(step, values | {"examples_per_second": rate}, kind="train")
            skipped = self._nonfinite_watch.update(step, values, self._progress.skipped_steps)
            if skipped:
                self._progress.skipped_steps += 1
                say(f"warning: {skipped}")
                continue
            warning = self._collapse_watch.update(step, values)
            if warning:
                say(f"warning: step {step}: {warning}")
        self._log.flush()
        terms = [key.removeprefix("loss_") for key in values if key.startswith("loss_")]
        losses = "  ".join(f"{name} {values[f'loss_{name}']:.3g} x{values[f'weight_{name}']:.3g}" for name in terms)
        self._bar.update(steps[-1], f"epoch {epoch_name}", losses)
