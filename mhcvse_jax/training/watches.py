"""Checks of each step's values: for numbers that are not finite, and for a collapsed loss."""

import math
from collections.abc import Callable, Mapping, Sequence

from mhcvse_jax.errors import RunFailedError
from mhcvse_jax.losses import CONTRASTIVE, collapse_value, infonce_collapse_value
from mhcvse_jax.training.step import LossSettings


class NonFiniteWatch:
    """Stops or skips at a loss or gradient that is not finite.

    Such a step leaves the parameters as they were, and so do all later ones until this check runs.
    """

    def __init__(self, policy: str, limit: int, pictures_of: Callable[[int], Sequence[str]]):
        """Takes "stop" or "skip", the steps that may be skipped, and how to find the picture ids of a step."""
        self._policy, self._limit, self._pictures_of = policy, limit, pictures_of

    def update(self, step: int, values: Mapping[str, float], skipped_before: int) -> str | None:
        """Returns a warning if this step was skipped, None if all its values are finite.

        Raises:
          RunFailedError: the policy is "stop", or too many have been skipped. It names step, term and pictures.
        """
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if not wrong:
            return None
        terms = ", ".join(
            f"{name} {values[name]}" for name in sorted(wrong, key=lambda name: not name.startswith("loss_"))
        )
        what = f"step {step}: not finite: {terms}; pictures of its batch: {' '.join(self._pictures_of(step))}"
        if self._policy == "skip":
            if skipped_before < self._limit:
                return f"{what}; skipped, {skipped_before + 1} of {self._limit} steps allowed"
            what += f"; config.optimizer.nonfinite_limit, {self._limit}, was reached"
        raise RunFailedError(
            f"{what}. The last checkpoint is from before it; a lower config.optimizer.learning_rate or a look at "
            "the features may help"
        )


class CollapseWatch:
    """Reports a contrastive loss stuck at the value of collapsed embeddings."""

    TOLERANCE = 0.01  # relative

    def __init__(self, value_at: Callable[[str, int], float], patience_steps: int):
        """Takes the collapse value by term and step, and the steps there before it is reported, once per term."""
        self._value_at = value_at
        self._patience = patience_steps
        self._steps: dict[str, int] = {}

    def update(self, step: int, values: Mapping[str, float]) -> str | None:
        """Returns a warning when a term of this step has been collapsed for long, else None."""
        for name in CONTRASTIVE:
            if f"loss_{name}" not in values:
                continue
            collapse = self._value_at(name, step)
            collapsed = abs(values[f"loss_{name}"] - collapse) <= self.TOLERANCE * collapse
            self._steps[name] = self._steps.get(name, 0) + 1 if collapsed else 0
            if self._steps[name] == self._patience:
                return (
                    f"the {name} loss has been at its collapse value, {collapse:.4g}, for {self._patience} steps: "
                    "all embeddings are alike. Try config.loss.negatives=soft, a lower "
                    "config.optimizer.learning_rate or config.optimizer.warmup_epochs=1"
                )
        return None


def collapse_values(settings: LossSettings, batch_size: int, mined_negatives: int) -> Callable[[str, int], float]:
    """Returns a function of term and step: the loss when all embeddings are equal.

    Args:
      settings: the settings of the loss.
      batch_size: pairs per step.
      mined_negatives: how many a pair model scores for each picture and caption; 0: all of the batch.
    """

    def value_at(term: str, step: int) -> float:
        every = batch_size - 1
        count = min(mined_negatives, every) if term == "fusion" and mined_negatives else every
        if settings.infonce:
            return infonce_collapse_value(batch_size, settings.reduction, num_negatives=count)
        if settings.negative_temperature or step > settings.all_negatives_steps:
            count = 1
        return collapse_value(batch_size, settings.margin, settings.reduction, num_negatives=count)

    return value_at
