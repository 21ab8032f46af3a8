"""MH-CVSE for your own pictures, some thousands of them, with features by `mhcvse extract` (docs/pictures.md).

    mhcvse extract --images photos --captions captions.csv --out data/mine
    mhcvse train --config pictures --config.data.dir=data/mine

The choices are those of configs/f30k_small.py, but for all negatives in the first half of the training: on Flickr8k,
6,000 training pictures with these features, the losses then never stood at the value of equal embeddings, but for
that of the consensus. Test rsum there, one seed: fused 214, instance 215.
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.data.dir = "data/mine"
    config.num_epochs = 8
    config.concepts.training_label = "caption"
    config.model.embedding_dim = 256
    config.model.attention_residual = True
    config.model.consensus_norm = "layer"
    config.loss.all_negatives_epochs = 4.0
    config.optimizer.learning_rate = 5e-4
    return config
