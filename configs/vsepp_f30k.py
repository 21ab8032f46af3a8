"""VSE++ on Flickr30k with region features and a Bi-GRU (BMVC 2018; VSE∞, CVPR 2021, with `gpo` pooling).

    python -m mhcvse_jax.main --config configs/vsepp_f30k.py --config.data.dir=data/f30k_precomp
    python -m mhcvse_jax.main --config configs/vsepp_f30k.py --config.model.pooling=gpo --workdir runs/vsepp_gpo

Needs SCAN's f30k_precomp directory (29,000 / 1,014 / 1,000 pictures of 36 x 2048). For VSE++ on features of the whole
picture MH-CVSE's Table 1 prints i2t 52.9 / - / 87.2 and t2i 39.6 / - / 79.5 (R@1/5/10); VSE∞ prints, with a Bi-GRU and
region features, i2t 76.5 / 94.2 / 97.7 and t2i 56.4 / 83.4 / 89.9. Ours: not yet measured.
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.data.dir = "data/f30k_precomp"
    config.text.remove_stop_words = False
    config.model.name = "vsepp"
    config.model.num_heads = 0
    config.loss.weighting = "fixed"
    config.loss.fusion_weight = 1.0
    config.optimizer.schedule = "step"
    config.optimizer.step_epochs = 15
    return config
