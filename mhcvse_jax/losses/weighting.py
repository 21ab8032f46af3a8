"""The dynamic weights of the loss terms (MH-CVSE Eq. 15)."""

import jax
import jax.numpy as jnp

from mhcvse_jax.losses.embedding import LossTerms


def loss_weights(losses: LossTerms, base_weights: LossTerms, weighting: str) -> LossTerms:
    """Returns lambda_i for each term that is present; no gradient passes through it.

      eq15     w_i / (1 + exp(-L_i)), as printed: from w_i / 2 at no loss to w_i at a high one
      inverse  w_i / (1 + exp(L_i)), as the sentence under Eq. 15 has it: a high loss lowers its weight
      fixed    w_i, CVSE's

    Losses near 50, as sums over a batch of 128 are, make eq15 equal w_i to six digits: the mean over the batch
    lets it move.

    Deviation: Eq. 15 and the sentence under it contradict each other; the equation is the default.

    Args:
      losses: the terms' values.
      base_weights: w_i, of these terms or more.
      weighting: a name above.
    """
    absent = {name: None for name, loss in losses._asdict().items() if loss is None}
    base_weights = base_weights._replace(**absent)
    if weighting == "fixed":
        return jax.tree.map(jnp.asarray, base_weights)
    sign = {"eq15": 1.0, "inverse": -1.0}[weighting]
    return jax.tree.map(
        lambda loss, weight: weight * jax.nn.sigmoid(sign * jax.lax.stop_gradient(loss)), losses, base_weights
    )
