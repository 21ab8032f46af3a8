"""Adam with clipped gradients, its rate under a cosine schedule (MH-CVSE Eq. 16) or in steps (CVSE)."""

import itertools

import jax
import optax


def cosine_schedule(
    *, peak: float, total_steps: int, warmup_steps: int, cycles: int, final_share: float
) -> optax.Schedule:
    """Returns the rate by step: a linear warm-up from 0, then cosine annealing in `cycles` equal parts.

    The paper speaks of cycles in section 2.3 and of one annealing in 3.5: one cycle is the second.

    Args:
      peak: the highest rate, at the start of each cycle.
      total_steps: steps of the whole training, warm-up included.
      warmup_steps: steps of the warm-up; 0 for none.
      cycles: 1 or more.
      final_share: the rate at the end of a cycle, as a share of the peak.
    """
    annealed = total_steps - warmup_steps
    starts = [warmup_steps + round(i * annealed / cycles) for i in range(cycles + 1)]
    schedules = [
        optax.cosine_decay_schedule(peak, max(end - start, 1), alpha=final_share)
        for start, end in itertools.pairwise(starts)
    ]
    if warmup_steps:
        schedules.insert(0, optax.linear_schedule(0.0, peak, warmup_steps))
        return optax.join_schedules(schedules, starts[:-1])
    return optax.join_schedules(schedules, starts[1:-1])


def step_schedule(*, peak: float, warmup_steps: int, steps: int, factor: float) -> optax.Schedule:
    """Returns the rate by step: a linear warm-up from 0, then the peak, multiplied by `factor` after each `steps`.

    The first `steps` are counted from the start of the training, the warm-up among them.
    """
    decayed = optax.exponential_decay(peak, steps, factor, staircase=True)
    if not warmup_steps:
        return decayed
    warmup = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return lambda step: warmup(step) * decayed(step)


def make_optimizer(
    schedule: optax.Schedule,
    *,
    clip_norm: float,
    b1: float,
    b2: float,
    eps: float,
    gcn_rate_factor: float,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Returns clipping by global norm, Adam, and the schedule; the concept GCN's rate may have a factor.

    `weight_decay` is AdamW's (arXiv:1711.05101), of matrices alone: a step takes rate * weight_decay of each.
    """

    def is_gcn(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "concept_gcn", params)

    def is_matrix(params):
        return jax.tree.map(lambda values: values.ndim > 1, params)

    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    if weight_decay:
        adam = optax.chain(adam, optax.add_decayed_weights(weight_decay, is_matrix))
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        adam,
        optax.masked(optax.scale(gcn_rate_factor), is_gcn) if gcn_rate_factor != 1 else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    )
