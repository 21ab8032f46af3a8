"""MH-CVSE at a size that a laptop trains in minutes, for any directory in SCAN's layout.

    python -m mhcvse_jax.main --config configs/f30k_small.py --config.data.dir=DIR

D 256, 8 epochs.
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.data.dir = "data/f30k_small"
    config.num_epochs = 8
    config.model.embedding_dim = 256
    config.model.attention_residual = True
    config.model.consensus_norm = "layer"
    config.loss.all_negatives_epochs = 1.0
    config.optimizer.learning_rate = 5e-4
    return config
