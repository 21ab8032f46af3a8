"""The detector as one program: a picture on its canvas in, its regions out."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mhcvse_jax.detection.heads import NUM_BINS, AttributeScores, ClassScores, RegionFeatures
from mhcvse_jax.detection.proposals import ProposalHead, Proposals, Search, propose
from mhcvse_jax.detection.resnet import Trunk, map_size
from mhcvse_jax.detection.roi_pool import RoIPool
from mhcvse_jax.detection.selection import Choice, choose, confidences


class Architecture(NamedTuple):
    """Sizes of the network."""

    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)  # residual blocks of res2 to res5: ResNet-101
    width: int = 64  # channels of the stem; all others of the residual network are multiples of it
    proposal_channels: int = 512
    num_classes: int = 1600  # without the background
    num_attributes: int = 400  # without none; 0: there is no such head

    @property
    def features_dim(self) -> int:
        """Features of a region."""
        return 32 * self.width


VISUAL_GENOME = Architecture()
"""Of the network whose weights are published."""


class Detections(NamedTuple):
    """The regions of a picture, by confidence; rows from `num` on are padding."""

    num: jax.Array  # <int32>[]
    boxes: jax.Array  # <float32>[most, 4] in pixels of the original picture
    features: jax.Array  # <float32>[most, F]
    classes: jax.Array  # <int32>[most], from 0: the likeliest but for the background
    class_scores: jax.Array  # <float32>[most], in [0, 1]
    attributes: jax.Array | None  # <int32>[most], from 0: the likeliest but for none
    attribute_scores: jax.Array | None  # <float32>[most], in [0, 1]


class FasterRCNN(nn.Module):
    """Faster R-CNN with a ResNet's C4 feature map, RoIPool, and attributes (Anderson et al. 2018, section 3.1).

    Attributes:
      architecture: sizes of the network.
      choice: how many regions a picture gets.
      search: how proposals are found.
      chunk: proposals whose features are computed at once; a matter of memory alone.
      dtype: the type in which convolutions compute. Parameters, scores, boxes and features are float32.
      precision: the precision of products in float32.
    """

    architecture: Architecture
    choice: Choice
    search: Search = Search()
    chunk: int = 20
    dtype: Any = jnp.float32
    precision: Any = jax.lax.Precision.HIGHEST

    def setup(self):
        sizes, options = self.architecture, {"dtype": self.dtype, "precision": self.precision}
        self.trunk = Trunk(sizes.blocks[:3], sizes.width, **options)
        self.proposal_head = ProposalHead(sizes.proposal_channels, **options)
        self.region_features = RegionFeatures(sizes.blocks[3], 8 * sizes.width, **options)
        self.class_scores = ClassScores(sizes.num_classes, self.precision)
        if sizes.num_attributes:
            self.attribute_scores = AttributeScores(
                sizes.num_classes, sizes.num_attributes, 4 * sizes.width, 8 * sizes.width, self.precision
            )

    def __call__(self, canvas: jax.Array, size: jax.Array, scale: jax.Array) -> Detections:
        """Returns the regions of a picture.

        Args:
          canvas: <float32>[height, width, 3], the picture in the upper left, 0 beside it (see `pixels`).
          size: <int32>[2], height and width of the picture on the canvas.
          scale: <float32>[], pixels on the canvas per pixel of the original.
        """
        feature_map = self.trunk(canvas, size)
        proposals = self.propose(feature_map, size, scale)
        return self.choose(proposals, self.features(feature_map, size, proposals.boxes), scale)

    def propose(self, feature_map: jax.Array, size: jax.Array, scale: jax.Array) -> Proposals:
        """Returns the proposals on a feature map <dtype>[rows, columns, channels]; `size` and `scale` as `__call__`."""
        return propose(*self.proposal_head(feature_map), map_size(size), size, scale, self.search)

    def features(self, feature_map: jax.Array, size: jax.Array, boxes: jax.Array) -> jax.Array:
        """Returns <float32>[boxes, F] of boxes <float32>[boxes, 4], `chunk` of them at once; the rest as `propose`."""
        pool = RoIPool(feature_map, map_size(size), NUM_BINS)

        def one_chunk(module: "FasterRCNN", carry: None, boxes: jax.Array) -> tuple[None, jax.Array]:
            return carry, module.region_features(pool(boxes))

        num = len(boxes)
        num_chunks = -(-num // self.chunk)
        boxes = jnp.pad(boxes, ((0, num_chunks * self.chunk - num), (0, 0)))
        in_chunks = nn.scan(one_chunk, variable_broadcast="params", split_rngs={"params": False})
        _, features = in_chunks(self, None, boxes.reshape(num_chunks, self.chunk, 4))
        return features.reshape(num_chunks * self.chunk, -1)[:num]

    def choose(self, proposals: Proposals, features: jax.Array, scale: jax.Array) -> Detections:
        """Returns the regions among the proposals.

        Args:
          proposals: the picture's proposals.
          features: <float32>[proposals, F], the features of each.
          scale: as in `__call__`.
        """
        boxes = proposals.boxes / scale
        probabilities = nn.softmax(self.class_scores(features))
        confidence = confidences(boxes, proposals.valid, probabilities[:, 1:])
        num, places = choose(confidence, proposals.valid, self.choice)

        features, probabilities = features[places], probabilities[places]
        attributes = attribute_scores = None
        if self.architecture.num_attributes:
            logits = self.attribute_scores(features, jnp.argmax(probabilities, axis=1))
            attributes, attribute_scores = _likeliest(nn.softmax(logits))
        return Detections(num, boxes[places], features, *_likeliest(probabilities), attributes, attribute_scores)


def _likeliest(probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the most likely of all but the first, counted from the second, and its probability."""
    return jnp.argmax(probabilities[:, 1:], axis=1), jnp.max(probabilities[:, 1:], axis=1)
