"""SCAN on Flickr30k (ECCV 2018): text-to-image attention with average pooling, 30 epochs.

    python -m mhcvse_jax.main --config configs/scan_f30k.py --config.data.dir=data/f30k_precomp

Needs SCAN's f30k_precomp directory (29,000 / 1,014 / 1,000 pictures of 36 x 2048). MH-CVSE's Table 1 prints i2t 67.4 /
90.3 / 95.8 and t2i 48.6 / 77.7 / 85.2 (R@1/5/10), of two models together. Ours: not yet measured.

SCAN's four single models are `--config scan_f30k:t2i_avg`, which is the default, `:t2i_lse`, `:i2t_avg`, `:i2t_lse`.

The score of a pair needs both sides, so dev is validated on its first 1,000 captions; the test is on all pairs.
Deviation: SCAN has no dropout on words and takes other captions of a picture for negatives; here they are masked.
"""

from mhcvse_jax.config import base

TEMPERATURES = {"t2i_avg": (9.0, 6.0), "t2i_lse": (9.0, 6.0), "i2t_avg": (4.0, 5.0), "i2t_lse": (4.0, 5.0)}


def get_config(variant="t2i_avg"):
    if variant not in TEMPERATURES:
        raise ValueError(f"{variant!r} is no variant; expected one of {', '.join(TEMPERATURES)}")
    config = base()
    config.data.dir = "data/f30k_precomp"
    config.text.remove_stop_words = False
    config.model.name = "scan"
    config.model.num_heads = 0
    config.model.scan_direction, config.model.scan_pooling = variant.split("_")
    config.model.scan_attention_temperature, config.model.scan_lse_temperature = TEMPERATURES[variant]
    config.model.dropout_rate = 0.0
    config.loss.weighting = "fixed"
    config.loss.fusion_weight = 1.0
    config.optimizer.schedule = "step"
    config.optimizer.step_epochs = 15
    config.eval.validation_captions = 1000
    return config
