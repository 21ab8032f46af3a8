"""Two-way cross-modal attention with hierarchical fusion on Flickr30k (after arXiv:2406.15306).

    python -m mhcvse_jax.main --config configs/cross_attention_f30k.py --config.data.dir=data/f30k_precomp

Needs SCAN's f30k_precomp directory (29,000 / 1,014 / 1,000 pictures of 36 x 2048). Only the abstract of the paper is
public, so the design is ours (mhcvse_jax/models/cross_attention.py says which choices) and there is no published recall
to reproduce. Recall and time: not yet measured.

The score of a pair needs both sides, so dev is validated on its first 1,000 captions; the test is on all pairs.
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.data.dir = "data/f30k_precomp"
    config.text.remove_stop_words = False
    config.model.name = "cross_attention"
    config.loss.weighting = "fixed"
    config.loss.fusion_weight = 1.0
    config.loss.instance_weight = 1.0
    config.eval.validation_captions = 1000
    return config
