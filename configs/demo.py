"""MH-CVSE on the built-in data set of drawn scenes: a minute and a half on two idle CPU cores, all told.

    make demo        or        python -m mhcvse_jax.main --config configs/demo.py

Test recall, seed 0: i2t 47.6 / 76.4 / 83.2, t2i 25.6 / 50.0 / 60.9 (R@1/5/10), rsum 343.8.
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.batch_size = 64
    config.num_epochs = 5
    config.data.format = "scenes"
    config.data.caption_lengths = (40,)  # one shape: in so short a training compiling costs more than padding
    config.text.remove_stop_words = False
    config.concepts.num = 30
    config.concepts.training_label = "caption"
    config.model.embedding_dim = 128
    config.model.word_dim = 64
    config.model.dropout_rate = 0.0
    config.model.attention_residual = True
    config.model.attention_start = "zero"
    config.model.fusion_start = "fixed_sum"
    config.model.consensus_norm = "layer"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_epochs = 0.5
    config.log.matches = 3
    config.log.report = True
    return config
