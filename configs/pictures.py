"""MH-CVSE for your own pictures, some thousands of them, with features by `mhcvse extract` (docs/pictures.md).

    mhcvse extract --images photos --captions captions.csv --out data/mine
    mhcvse train --config pictures --config.data.dir=data/mine

The choices are those of configs/f8k.py, which were made on the dev split of Flickr8k, 6,000 training pictures with the
default encoder's features.
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.num_epochs = 8
    config.data.dir = "data/mine"
    config.text.remove_stop_words = False
    config.concepts.training_label = "caption"
    config.model.embedding_dim = 256
    config.model.feature_dropout_rate = 0.3
    config.model.element_dropout_rate = 0.2
    config.model.attention_dropout_rate = 0.2
    config.model.attention_residual = True
    config.model.attention_start = "zero"
    config.model.fusion_start = "fixed_sum"
    config.model.consensus_norm = "layer"
    config.loss.kl_weight = 0.3
    config.optimizer.learning_rate = 1e-3
    return config
