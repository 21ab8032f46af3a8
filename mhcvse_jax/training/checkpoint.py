"""Checkpoints of a run: the latest and the best by dev rsum, by orbax."""

import dataclasses
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers

from mhcvse_jax.errors import InputError
from mhcvse_jax.mesh import replicated
from mhcvse_jax.training.step import TrainState


@dataclasses.dataclass
class Progress:
    """What the loop knows beside the state of the model."""

    best_rsum: float = -1.0
    best_step: int = -1
    epochs_done: int = 0  # and validated
    epochs_without_better: int = 0
    train_seconds: float = 0.0  # over all starts

    def record(self, rsum: float, step: int) -> bool:
        """Counts a validated epoch; returns whether it is the best so far."""
        self.epochs_done += 1
        if rsum > self.best_rsum:
            self.best_rsum, self.best_step, self.epochs_without_better = rsum, step, 0
            return True
        self.epochs_without_better += 1
        return False


class Checkpoints:
    """The checkpoints in one directory, a step each.

    Three items a step, so that each can be restored alone: `model` (parameters and batch statistics), `training`
    (optimiser state, step and key) and `progress` (JSON). Saving goes on beside the training; `close` waits.
    """

    def __init__(self, directory: pathlib.Path, *, keep_best: int = 1, keep_latest: int = 1, create: bool = True):
        """Opens the directory; makes it unless `create` is off.

        Raises:
          InputError: it does not exist and is not to be made.
        """
        if not create and not directory.is_dir():
            raise InputError(f"{directory}: no such directory; expected the checkpoints of a run")
        policies = [
            checkpoint_managers.LatestN(keep_latest),
            checkpoint_managers.BestN(
                # A key to sort by: of equal ones the earliest, which Progress takes for the best.
                get_metric_fn=lambda metrics: (metrics["rsum"], -metrics["step"]),  # pyright: ignore[reportArgumentType]
                n=keep_best,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        self._directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                create=create,
            ),
            item_handlers={
                "model": ocp.StandardCheckpointHandler(),
                "training": ocp.StandardCheckpointHandler(),
                "progress": ocp.JsonCheckpointHandler(),
            },
        )

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, progress: Progress, rsum: float | None = None) -> None:
        """Saves a state; `rsum` is its dev rsum where it was validated. A step that is saved stays as it is."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(_model_item(state)),
                training=ocp.args.StandardSave(_training_item(state)),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
            ),
            metrics=None if rsum is None else {"rsum": rsum, "step": step},
        )

    def restore(self, like: TrainState, step: int, mesh: Mesh) -> tuple[TrainState, Progress]:
        """Returns the state and progress saved at a step, onto the devices of `mesh`.

        Raises:
          InputError: the checkpoint is of a model with other parameters.
        """
        self._check_model(_model_item(like), step)
        restored = self._manager_restore(
            step,
            model=ocp.args.StandardRestore(_target(_model_item(like), mesh)),
            training=ocp.args.StandardRestore(_target(_training_item(like), mesh)),
            progress=ocp.args.JsonRestore(),
        )
        state = like.replace(**restored["model"], **restored["training"])
        return state, Progress(**restored["progress"])

    def restore_model(self, like: Any, step: int, mesh: Mesh) -> Any:
        """Returns {params, batch_stats} saved at a step; `like` has their shapes.

        Raises:
          InputError: the checkpoint is of a model with other parameters.
        """
        self._check_model(like, step)
        return self._manager_restore(step, model=ocp.args.StandardRestore(_target(like, mesh)))["model"]

    def restore_progress(self, step: int) -> Progress:
        """Returns the progress saved at a step."""
        return Progress(**self._manager_restore(step, progress=ocp.args.JsonRestore())["progress"])

    def _manager_restore(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _check_model(self, like: Any, step: int) -> None:
        """Raises InputError for the first parameter that only one side has, or in another shape."""
        saved, expected = _shapes(self._manager.item_metadata(step)["model"].tree), _shapes(like)
        for name in sorted(saved.keys() | expected.keys()):
            if saved.get(name) != expected.get(name):
                raise InputError(
                    f"{self._directory / str(step)}: not a checkpoint of this configuration's model: {name} is "
                    f"{saved.get(name, 'missing')}; expected {expected.get(name, 'no such parameter')}"
                )

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the directory."""
        self._manager.wait_until_finished()
        self._manager.close()


def _model_item(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _training_item(state: TrainState) -> dict[str, Any]:
    return {"opt_state": state.opt_state, "step": state.step, "key": state.key}


def _target(like: Any, mesh: Mesh) -> Any:
    """Returns shapes and types of `like`, to be placed whole on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array by its path, `params/text_gru/embed/embedding` for example."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
