r"""CVSE on Flickr30k (ECCV 2020), trained so that it learns: the baseline that MH-CVSE extends.

    python -m mhcvse_jax.main --config cvse_f30k --config.data.dir=data/f30k_precomp \
        --config.text.word_vectors_path=glove.840B.300d.txt

Needs SCAN's f30k_precomp directory (29,000 / 1,014 / 1,000 pictures of 36 x 2048). The MH-CVSE paper prints for CVSE
i2t 73.5 / 92.1 / 95.8 and t2i 52.9 / 80.4 / 87.8 (R@1/5/10). Ours: not yet measured.
CVSE starts from GloVe words; without the option above they start at random.

The model is CVSE's, its negatives are soft ones, all concepts count alike at the start, and the divergence weighs 0.3,
not 2 (docs/collapse.md). configs/cvse_f30k_paper.py is its own program.
"""

from mhcvse_jax.config import cvse


def get_config():
    config = cvse()
    config.data.dir = "data/f30k_precomp"
    config.loss.negatives = "soft"
    config.loss.kl_weight = 0.3
    config.model.consensus_start = "zero"
    return config
