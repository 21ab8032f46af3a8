"""MH-CVSE on MS-COCO in SCAN's layout: five folds of 1,000 test pictures, and all 5,000.

    python -m mhcvse_jax.main --config configs/coco.py --config.data.dir=data/coco_precomp

Needs SCAN's coco_precomp directory (113,287 training pictures of 36 x 2048; dev, testall). Recall and time:
not yet measured; the paper reports none on COCO. CVSE's fixed_sum has 0.9 here.
"""

from mhcvse_jax.config import mhcvse


def get_config():
    config = mhcvse()
    config.data.dir = "data/coco_precomp"
    config.model.fixed_instance_weight = 0.9
    config.eval.test_split = "testall"
    config.eval.folds = (5, 1)
    config.eval.label_neighbours = "coco"
    return config
