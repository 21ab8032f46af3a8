"""MH-CVSE at a size that two CPU cores train in some ten minutes, for any directory in SCAN's layout.

    python -m mhcvse_jax.main --config configs/f30k_small.py --config.data.dir=DIR

D 256, 8 epochs. The choices below that differ from the paper were made on Flickr30k's real captions with
stand-in region features (6,000 training pictures of 36 x 512, features drawn around the words of the captions),
so recall here says nothing about recall on Flickr30k. Test rsum there, three seeds: fused 406.3 ± 2.7.
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
    config.model.attention_residual = True
    config.model.consensus_norm = "layer"
    config.loss.all_negatives_epochs = 1.0
    config.optimizer.learning_rate = 5e-4
    return config
