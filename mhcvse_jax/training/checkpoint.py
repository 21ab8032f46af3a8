"""Checkpoints of a run: the latest and the best by dev rsum, by orbax, each file with its checksum."""

import contextlib
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers

from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.mesh import replicated
from mhcvse_jax.errors import InputError, RunFailedError
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.training import checksums

if TYPE_CHECKING:
    from mhcvse_jax.training.step import TrainState

NEWEST_FILE = "newest.json"
"""Beside the steps: the number of the last one written, so that its loss is noticed."""


@dataclasses.dataclass
class Progress:
    """The loop's own state, besides the model's."""

    best_rsum: float = -1.0
    best_step: int = -1
    epochs_done: int = 0  # and validated
    epochs_without_better: int = 0
    skipped_steps: int = 0  # whose loss or gradient was not finite
    train_seconds: float = 0.0  # over all starts
    features_on_devices: bool | None = None  # None: in no start yet, or not noted then

    def best(self) -> str:
        """Returns the best step in words, with its dev rsum where that is known."""
        return f"step {self.best_step:,}" + (f", dev rsum {self.best_rsum:.1f}" if self.best_rsum >= 0 else "")

    def record(self, rsum: float, step: int) -> bool:
        """Counts a validated epoch; returns whether it is the best so far."""
        self.epochs_done += 1
        if rsum > self.best_rsum:
            self.best_rsum, self.best_step, self.epochs_without_better = rsum, step, 0
            return True
        self.epochs_without_better += 1
        return False


class SavedCheckpoints:
    """The checkpoints in a directory, for reading; each file is verified before anything of its step is used.

    A step has three items, so that each can be restored alone: `model` (parameters and batch statistics),
    `training` (optimiser state, step and key) and `progress` (JSON).
    """

    def __init__(self, directory: pathlib.Path):
        """Verifies every step, which reads all their files once. Names on stderr each that is damaged.

        Raises:
          InputError: there are steps, and none is sound.
        """
        self._directory = directory.absolute()
        self.damaged = dict(distributed.from_first(self._find_damage))
        if self.damaged and self.newest_step() is None:
            raise InputError(f"{directory}: no sound checkpoint is left; expected at least one")

    def steps(self) -> list[int]:
        """Returns all steps, sound or not, the earliest first."""
        if not self._directory.is_dir():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if path.name.isdigit() and path.is_dir())

    def newest_step(self) -> int | None:
        """Returns the newest sound step; None if nothing was saved. All processes must call this."""
        return distributed.from_first(
            lambda: max((step for step in self.steps() if step not in self.damaged), default=None)
        )

    def step_to_test(self) -> int:
        """Returns the best step; if that is damaged or missing, warns on stderr and returns the newest sound one.

        Raises:
          InputError: no epoch has been validated.
        """
        newest = self.newest_step()
        best = -1 if newest is None else self.restore_progress(newest).best_step
        if newest is None or best < 0:
            raise InputError(f"{self._directory}: no epoch has been validated yet; expected a best checkpoint")
        if best in self.damaged or not self._has(best):
            _warn(f"the best checkpoint, step {best}, is lost; using step {newest} instead")
            return newest
        return best

    def restore(self, like: "TrainState", step: int, mesh: Mesh) -> "tuple[TrainState, Progress]":
        """Returns the state and progress saved at a step, onto the devices of `mesh`.

        Raises:
          InputError: the checkpoint is of a model with other parameters.
        """
        model = self.restore_model(_model_item(like), step, mesh)
        training = self._restore(step, "training", _target(_training_item(like), mesh))
        return like.replace(**model, **training), self.restore_progress(step)

    def restore_model(self, like: Any | None, step: int, mesh: Mesh) -> Any:
        """Returns {params, batch_stats} saved at a step; `like` has their shapes, None takes whatever was saved.

        Raises:
          InputError: the checkpoint is of a model with other parameters.
        """
        if like is None:
            like = self._saved_model(step)
        else:
            self._check_model(like, step)
        return self._restore(step, "model", _target(like, mesh))

    def restore_progress(self, step: int) -> Progress:
        """Returns the progress saved at a step."""
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            return Progress(**reader.restore(self._path(step) / "progress", args=ocp.args.JsonRestore()))

    def _restore(self, step: int, item: str, target: Any) -> Any:
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(self._path(step) / item, target)

    def model_shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each array of the model saved at a step, by its path."""
        return shapes(self._saved_model(step))

    def _saved_model(self, step: int) -> Any:
        """Returns {params, batch_stats} saved at a step, as shapes and types alone."""
        with ocp.StandardCheckpointer() as reader:
            return reader.metadata(self._path(step) / "model").item_metadata.tree

    def _check_model(self, like: Any, step: int) -> None:
        """Raises InputError for the first parameter that only one side has, or in another shape."""
        saved, expected = self.model_shapes(step), shapes(like)
        for name in sorted(saved.keys() | expected.keys()):
            if saved.get(name) != expected.get(name):
                raise InputError(
                    f"{self._path(step)}: not a checkpoint of this configuration's model: {name} is "
                    f"{saved.get(name, 'missing')}; expected {expected.get(name, 'no such parameter')}"
                )

    def _find_damage(self) -> list[tuple[int, str]]:
        """Returns the damaged steps, each with what is wrong; names them on stderr, and the newest if it is gone."""
        looked_at = [(step, checksums.damage(self._path(step))) for step in self.steps()]
        # A run under way drops old steps meanwhile: what is gone is not damaged.
        damaged = [(step, damage) for step, damage in looked_at if damage and self._path(step).is_dir()]
        for step, damage in damaged:
            _warn(f"checkpoint {self._path(step)} is not used: {damage}")
        newest = self._newest_written()
        if newest is not None and newest not in self.steps():
            _warn(f"checkpoint {self._path(newest)} is missing: deleted, or its saving was cut off")
        return damaged

    def _has(self, step: int) -> bool:
        return distributed.from_first(lambda: step in self.steps())

    def _newest_written(self) -> int | None:
        try:
            return json.loads((self._directory / NEWEST_FILE).read_text(encoding="utf-8"))["step"]
        except (OSError, ValueError, KeyError):
            return None

    def _path(self, step: int) -> pathlib.Path:
        return self._directory / str(step)


class Checkpoints(SavedCheckpoints):
    """The checkpoints of a run under way, to resume from and to add to.

    Saving runs beside the training; `wait` and `close` wait for it. A step appears complete, with its checksums, or not
    at all.
    """

    def __init__(self, directory: pathlib.Path, *, keep_best: int = 1, keep_latest: int = 1):
        """Makes the directory where there is none; moves damaged steps into `damaged_checkpoints` beside it."""
        super().__init__(directory)
        distributed.from_first(lambda: [_set_aside(self._path(step)) for step in self.damaged])
        policies = [
            checkpoint_managers.LatestN(keep_latest),
            checkpoint_managers.BestN(
                # A key to sort by: of equal ones the earliest, which Progress takes for the best.
                get_metric_fn=lambda metrics: (metrics["rsum"], -metrics["step"]),  # pyright: ignore[reportArgumentType]
                n=keep_best,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        self._saving = -1
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=lambda metrics: metrics["rsum"],  # without one, metrics are forgotten at the end of a process
                cleanup_tmp_directories=True,  # what a killed process left
                async_options=ocp.AsyncOptions(
                    # Called when a step's files are written and the step has not got its name yet.
                    post_finalization_callback=self._seal,
                    # A directory that cannot be made is an error at once, not a wait of minutes.
                    create_directories_asynchronously=False,
                ),
            ),
            item_handlers={
                "model": ocp.StandardCheckpointHandler(),
                "training": ocp.StandardCheckpointHandler(),
                "progress": ocp.JsonCheckpointHandler(),
            },
        )

    def save(self, state: "TrainState", progress: Progress, rsum: float | None = None) -> None:
        """Saves a state; `rsum` is its dev rsum where it was validated. A step that is saved stays as it is.

        Raises:
          RunFailedError: this step, or the one before it, could not be written.
        """
        step = int(state.step)
        self.wait()  # so that `_saving` is the only one under way
        if self._has(step):
            return
        self._saving = step
        with self._failing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    model=ocp.args.StandardSave(_model_item(state)),
                    training=ocp.args.StandardSave(_training_item(state)),
                    progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
                ),
                metrics=None if rsum is None else {"rsum": rsum, "step": step},
            )

    def wait(self) -> None:
        """Returns when what was saved is on disk.

        Raises:
          RunFailedError: it could not be written.
        """
        with self._failing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases the directory."""
        self.wait()
        self._manager.close()

    def _seal(self) -> None:
        """Adds the checksums to the step that is about to get its name: process 0, when all have written."""
        (unnamed,) = self._directory.glob(f"{self._saving}.*tmp*")
        checksums.write(unnamed)
        with whole_file(self._directory / NEWEST_FILE) as path:
            path.write_text(json.dumps({"step": self._saving}) + "\n", encoding="utf-8")

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Context that turns orbax's many kinds of errors into one."""
        try:
            yield
        except Exception as error:
            distributed.raise_peer_lost(error)
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise RunFailedError(f"{self._path(self._saving)}: checkpoint not written: {reason[0]}") from error


def _set_aside(step: pathlib.Path) -> None:
    """Moves a damaged step aside, where it can still be inspected."""
    aside = step.parent.parent / "damaged_checkpoints"
    aside.mkdir(exist_ok=True)
    number = len(list(aside.glob(f"{step.name}.*")))
    step.rename(aside / f"{step.name}.{number}")


def _warn(text: str) -> None:
    if distributed.is_first():
        print(f"warning: {text}", file=sys.stderr, flush=True)


def _model_item(state: "TrainState") -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _training_item(state: "TrainState") -> dict[str, Any]:
    return {"opt_state": state.opt_state, "step": state.step, "key": state.key}


def _target(like: Any, mesh: Mesh) -> Any:
    """Returns shapes and types of `like`, to be placed whole on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array by its path, `params/text_gru/embed/embedding` for example."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
