"""MH-CVSE on Flickr8k's real pictures (6,000 / 1,000 / 1,000), or any directory of some thousands of pictures.

    python -m mhcvse_jax.main --config f8k --config.data.dir=data/flickr8k

D 256, 8 epochs of 234 steps, at a rate of 1e-3; words begin as GloVe's, by the extra `[glove]`. Chosen on dev, with 36
cells of 1,280 features of EfficientNet-Lite2 a picture (`mhcvse extract`): docs/results.md has what each key brings.
Test recall, mean of three seeds: i2t 29.2 / 57.5 / 68.6, t2i 21.9 / 50.0 / 63.6 (R@1/5/10), rsum 290.8 ± 2.8.
"""

from mhcvse_jax.config import mhcvse


def get_config():
    config = mhcvse()
    config.num_epochs = 8
    config.data.dir = "data/flickr8k"
    config.text.remove_stop_words = False
    config.text.word_vectors_path = "glove"
    config.model.pooling = "attention"
    config.model.word_dim = 600
    config.model.embedding_dim = 256
    config.model.feature_dropout_rate = 0.3
    config.model.element_dropout_rate = 0.2
    config.model.attention_dropout_rate = 0.2
    config.optimizer.learning_rate = 1e-3
    return config
