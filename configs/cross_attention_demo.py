"""Two-way cross-modal attention with hierarchical fusion on the built-in data set of drawn scenes.

    python -m mhcvse_jax.main --config configs/cross_attention_demo.py

Test, all pairs: i2t 32.6 / 63.2 / 79.2, t2i 21.0 / 47.6 / 60.8 (R@1/5/10), rsum 304.4. The sizes are those of
configs/demo.py, but for the heads: two, 64 wide; with eight, 16 wide, the rsum is 273.4. All negatives count
throughout, for the reason given there: none is mined by the global level, and a pair is told from two others of its
batch, not from the hardest. Dev is validated on 500 captions.
"""

from mhcvse_jax.config import base


def get_config():
    config = base()
    config.batch_size = 64
    config.num_epochs = 5
    config.data.format = "scenes"
    config.data.caption_lengths = (40,)
    config.text.remove_stop_words = False
    config.concepts.num = 30
    config.model.name = "cross_attention"
    config.model.embedding_dim = 128
    config.model.num_heads = 2
    config.model.word_dim = 64
    config.model.dropout_rate = 0.0
    config.loss.weighting = "fixed"
    config.loss.fusion_weight = 1.0
    config.loss.instance_weight = 1.0
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_epochs = 0.5
    config.eval.validation_captions = 500
    return config
