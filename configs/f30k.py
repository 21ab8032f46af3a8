"""MH-CVSE on Flickr30k, as in the paper (arXiv:2412.19184, section 4.3 and Table 1, last row).

    python -m mhcvse_jax.main --config configs/f30k.py --config.data.dir=data/f30k_precomp

Needs SCAN's f30k_precomp directory (29,000 / 1,014 / 1,000 pictures of 36 x 2048). The paper prints
i2t 74.1 / 92.6 / 95.4 and t2i 53.8 / 82.1 / 88.9 (R@1/5/10) on one RTX 3080. Ours: not yet measured.
Where the paper is silent this follows CVSE (ECCV 2020): base loss weights, rates, batch norm.

Deviation: the attention's unit-length inputs are scaled by sqrt(D) (`attention_input = "scaled"`): as the
paper draws it, first attention logits have a size of 0.001 and every head attends uniformly.

As in the paper, a training caption has the concepts of its picture. On stand-in features that cost the fused
embedding 28 rsum against the instance embedding; `concepts.training_label = "caption"` made it 2 (docs/results.md).

On stand-in features, 6,000 pictures and D 256, this configuration collapsed: after 6 epochs the instance loss was at
the value of equal embeddings, 51.2, and dev rsum 137. Whether the real features at full size behave so is not yet
measured. The run warns when a loss stays there. configs/f30k_small.py, which trains on the same
files, says what it does otherwise; it takes any D and number of epochs.
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.data.dir = "data/f30k_precomp"
    return config
