"""What training minimises: the loss terms of embeddings and of pair scores, and their weights."""

from mhcvse_jax.losses.embedding import (
    CONTRASTIVE,
    LossTerms,
    collapse_value,
    contrastive_loss,
    contrastive_loss_in_blocks,
    kl_divergence,
    loss_terms,
    negatives,
)
from mhcvse_jax.losses.pairs import matching_loss, pair_hinge, pair_loss_terms
from mhcvse_jax.losses.weighting import loss_weights

__all__ = [
    "CONTRASTIVE",
    "LossTerms",
    "collapse_value",
    "contrastive_loss",
    "contrastive_loss_in_blocks",
    "kl_divergence",
    "loss_terms",
    "loss_weights",
    "matching_loss",
    "negatives",
    "pair_hinge",
    "pair_loss_terms",
]
