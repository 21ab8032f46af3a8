"""MH-CVSE on the built-in data set of drawn scenes; trains in a minute or two on two CPU cores.

make demo        or        python -m mhcvse_jax.main --config configs/demo.py
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.data.format = "scenes"
    config.num_epochs = 8
    config.text.remove_stop_words = False
    config.concepts.num = 30
    config.model.embedding_dim = 128
    config.model.word_dim = 64
    config.model.dropout_rate = 0.1
    config.model.attention_residual = True
    config.model.consensus_norm = "layer"
    config.loss.all_negatives_epochs = 1.0
    config.optimizer.learning_rate = 1e-3
    config.log.matches = 3
    return config
