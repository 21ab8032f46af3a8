"""MH-CVSE at a size that two CPU cores train in some ten minutes, for any directory in SCAN's layout.

    python -m mhcvse_jax.main --config configs/f30k_small.py --config.data.dir=DIR

D 256, 8 epochs, and configs/f30k.py otherwise. Its rate of 1e-3 was chosen on Flickr8k's real pictures, whose number of
captions it is meant for. Recall: not yet measured since.
"""

from mhcvse_jax.config import mhcvse


def get_config():
    config = mhcvse()
    config.data.dir = "data/f30k_small"
    config.num_epochs = 8
    config.model.embedding_dim = 256
    config.optimizer.learning_rate = 1e-3
    return config
