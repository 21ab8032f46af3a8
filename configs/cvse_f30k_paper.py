r"""CVSE on Flickr30k (ECCV 2020), as its released program trains it: what is compared with PyTorch.

    python -m mhcvse_jax.main --config cvse_f30k_paper --config.data.dir=data/f30k_precomp \
        --config.text.word_vectors_path=glove.840B.300d.txt

Needs SCAN's f30k_precomp directory (29,000 / 1,014 / 1,000 pictures of 36 x 2048). The MH-CVSE paper prints for CVSE
i2t 73.5 / 92.1 / 95.8 and t2i 52.9 / 80.4 / 87.8 (R@1/5/10), and does not say whether labels are completed over the
test set, as CVSE's program does it. Ours: not yet measured.
CVSE starts from GloVe words; without the option above they start at random.

It has the hardest negatives from the first step on, and may stay at the value of equal embeddings (docs/collapse.md):
after 4 epochs of 234 steps both programs are near chance (docs/results.md). configs/cvse_f30k.py trains.

Deviation: it reads captions as the literal of their bytes (`text.bytes_literal`, off here), validates with label
completion on the first 5,000 captions of dev, and multiplies the rate of the concept GCN by 0.2 where that of all else
is multiplied by 0.1.
"""

from mhcvse_jax.config import cvse


def get_config():
    config = cvse()
    config.data.dir = "data/f30k_precomp"
    return config
