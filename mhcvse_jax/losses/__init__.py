"""What training minimises: the loss terms of embeddings and pair scores, and their weights."""

from mhcvse_jax.losses.embedding import (
    CONTRASTIVE,
    Contrast,
    LossTerms,
    collapse_value,
    contrastive_loss,
    contrastive_loss_in_blocks,
    hardness,
    infonce_collapse_value,
    kl_divergence,
    loss_terms,
    negatives,
)
from mhcvse_jax.losses.pairs import matching_loss, pair_contrast, pair_loss_terms
from mhcvse_jax.losses.weighting import loss_weights

__all__ = [
    "CONTRASTIVE",
    "Contrast",
    "LossTerms",
    "collapse_value",
    "contrastive_loss",
    "contrastive_loss_in_blocks",
    "hardness",
    "infonce_collapse_value",
    "kl_divergence",
    "loss_terms",
    "loss_weights",
    "matching_loss",
    "negatives",
    "pair_contrast",
    "pair_loss_terms",
]
