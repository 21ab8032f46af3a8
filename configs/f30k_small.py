"""MH-CVSE at a size that two CPU cores train in some ten minutes, for any directory in SCAN's layout.

    python -m mhcvse_jax.main --config configs/f30k_small.py --config.data.dir=DIR

D 256, 8 epochs, and configs/f30k.py otherwise. Its rate of 1e-3 was chosen on Flickr8k's real pictures, whose size it
has; what it reaches there and on stand-in features is in docs/results.md.
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.data.dir = "data/f30k_small"
    config.num_epochs = 8
    # In training a caption has the concepts of its own words, as it does at test time. With its picture's, as in
    # the paper, the consensus is all but given away: its loss and the fused one fall to a fifth of the instance
    # loss, and the fused embedding is worse at test time than the instance embedding that it is made from.
    config.concepts.training_label = "caption"
    config.model.embedding_dim = 256
    # The attention and the fusion begin as if they were not there: at random they scatter what the layers before them
    # have aligned.
    config.model.attention_residual = True
    config.model.attention_start = "zero"
    config.model.fusion_start = "fixed_sum"
    config.model.consensus_norm = "layer"
    config.loss.kl_weight = 0.3
    config.optimizer.learning_rate = 1e-3
    return config
