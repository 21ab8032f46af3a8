"""Random weights of the detector under the names of bua-caffe-frcn-r101-k36.pth: for tests and timings alone."""

import numpy as np

from mhcvse_jax.detection.faster_rcnn import Architecture

State = dict[str, np.ndarray]


def random_state(architecture: Architecture, seed: int) -> State:
    """Returns tensors whose activations neither vanish nor grow; the batch norms are no identities."""
    rng = np.random.default_rng(seed)
    state: State = {}

    def weight(name: str, *shape: int, gain: float = 1.0) -> None:
        deviation = gain * np.sqrt(2 / np.prod(shape[1:]))
        state[f"{name}.weight"] = rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)

    def biased(name: str, *shape: int, gain: float = 1.0) -> None:
        weight(name, *shape, gain=gain)
        state[f"{name}.bias"] = rng.uniform(-0.2, 0.2, shape[0]).astype(np.float32)

    def normalised(name: str, *shape: int, gain: float = 1.0) -> None:
        weight(name, *shape, gain=gain)
        for what, low, high in (("weight", 0.7, 1.3), ("bias", -0.3, 0.3), ("running_mean", -0.3, 0.3)):
            state[f"{name}.norm.{what}"] = rng.uniform(low, high, shape[0]).astype(np.float32)
        state[f"{name}.norm.running_var"] = rng.uniform(0.5, 2.0, shape[0]).astype(np.float32)
        state[f"{name}.norm.num_batches_tracked"] = np.array(0)

    width, channels, features = architecture.width, architecture.proposal_channels, architecture.features_dim
    num_classes = 1 + architecture.num_classes
    normalised("backbone.stem.conv1", width, 3, 7, 7, gain=0.02)  # pixels are large
    inputs = width
    for stage, num_blocks in enumerate(architecture.blocks):
        owner = f"backbone.res{stage + 2}" if stage < 3 else "roi_heads.res5"
        narrow, wide = width << stage, 4 * width << stage
        for block in range(num_blocks):
            name = f"{owner}.{block}"
            if block == 0:
                normalised(f"{name}.shortcut", wide, inputs, 1, 1, gain=0.7)
            normalised(f"{name}.conv1", narrow, inputs, 1, 1)
            normalised(f"{name}.conv2", narrow, narrow, 3, 3)
            normalised(f"{name}.conv3", wide, narrow, 1, 1, gain=0.5 / num_blocks)
            inputs = wide
    head, predictor = "proposal_generator.rpn_head", "roi_heads.box_predictor"
    biased(f"{head}.conv", channels, features // 2, 3, 3)
    biased(f"{head}.objectness_logits", 24, channels, 1, 1)
    biased(f"{head}.anchor_deltas", 48, channels, 1, 1, gain=0.1)
    biased(f"{predictor}.cls_score", num_classes, features)
    biased(f"{predictor}.bbox_pred", 4 * num_classes, features)
    if architecture.num_attributes:
        weight(f"{predictor}.cls_embed", num_classes, 4 * width)
        biased(f"{predictor}.attr_linear1", 8 * width, features + 4 * width)
        biased(f"{predictor}.attr_linear2", 1 + architecture.num_attributes, 8 * width)
    return state
