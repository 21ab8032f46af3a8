"""MH-CVSE on Flickr8k's real pictures (6,000 / 1,000 / 1,000), or any directory of some thousands of pictures.

    python -m mhcvse_jax.main --config f8k --config.data.dir=data/flickr8k

D 256, 8 epochs of 234 steps, at a rate of 1e-3. Chosen on dev, with 36 cells of 1,280 features of EfficientNet-Lite2 a
picture (`mhcvse extract`): docs/collapse.md has what was tried. Test recall, seed 0: i2t 23.4 / 51.9 / 64.6,
t2i 19.5 / 46.3 / 59.5 (R@1/5/10), rsum 265.3.
"""

from mhcvse_jax.config import mhcvse


def get_config():
    config = mhcvse()
    config.num_epochs = 8
    config.data.dir = "data/flickr8k"
    config.text.remove_stop_words = False
    config.text.word_vectors_path = "glove"
    config.model.word_dim = 600
    config.model.embedding_dim = 256
    config.model.feature_dropout_rate = 0.3
    config.model.element_dropout_rate = 0.2
    config.model.attention_dropout_rate = 0.2
    config.optimizer.learning_rate = 1e-3
    return config
