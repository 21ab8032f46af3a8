"""The Faster R-CNN of bottom-up attention in PyTorch, as the Caffe program computes it: what ours is compared with.

Written from the description of the network, apart from `mhcvse_jax.detection`: one picture at its own size, without a
canvas; batch norms, the ceil-mode pooling and the dilated convolutions as modules; suppression and RoIPool by
torchvision unless others are given. The modules have the names of bua-caffe-frcn-r101-k36.pth.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    """A convolution without bias, and its batch norm, under the names that detectron2 gives them."""

    def __init__(self, inputs, outputs, kernel, stride=1, dilation=1):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.norm = nn.BatchNorm2d(outputs)
        self.options = {"stride": stride, "padding": dilation * (kernel // 2), "dilation": dilation}

    def forward(self, x):
        return self.norm(F.conv2d(x, self.weight, **self.options))


class Block(nn.Module):
    def __init__(self, inputs, width, stride=1, dilation=1, projected=False):
        super().__init__()
        self.conv1 = Norm(inputs, width, 1, stride)
        self.conv2 = Norm(width, width, 3, 1, dilation)
        self.conv3 = Norm(width, 4 * width, 1)
        self.shortcut = Norm(inputs, 4 * width, 1, stride) if projected else nn.Identity()

    def forward(self, x):
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def stage(inputs, width, blocks, stride, dilation=1):
    first = Block(inputs, width, stride, dilation, projected=True)
    return nn.Sequential(first, *(Block(4 * width, width, 1, dilation) for _ in range(blocks - 1)))


class Backbone(nn.Module):
    def __init__(self, blocks, width):
        super().__init__()
        self.stem = nn.ModuleDict({"conv1": Norm(3, width, 7, 2)})
        self.res2 = stage(width, width, blocks[0], 1)
        self.res3 = stage(4 * width, 2 * width, blocks[1], 2)
        self.res4 = stage(8 * width, 4 * width, blocks[2], 2)

    def forward(self, x):
        x = F.relu(self.stem["conv1"](x))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return self.res4(self.res3(self.res2(x)))


class RPNHead(nn.Module):
    def __init__(self, inputs, channels):
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, 24, 1)
        self.anchor_deltas = nn.Conv2d(channels, 48, 1)

    def forward(self, x):
        x = F.relu(self.conv(x))
        background, object_ = self.objectness_logits(x)[0].split(12)
        scores = (object_ - background).permute(1, 2, 0).reshape(-1)
        deltas = self.anchor_deltas(x)[0].permute(1, 2, 0).reshape(-1, 4)
        return scores, deltas


class Predictor(nn.Module):
    def __init__(self, features, classes, attributes):
        super().__init__()
        self.cls_score = nn.Linear(features, 1 + classes)
        self.bbox_pred = nn.Linear(features, 4 * (1 + classes))
        self.cls_embed = nn.Embedding(1 + classes, features // 8)
        self.attr_linear1 = nn.Linear(features + features // 8, features // 4)
        self.attr_linear2 = nn.Linear(features // 4, 1 + attributes)

    def forward(self, x):
        scores = self.cls_score(x)
        hidden = F.relu(self.attr_linear1(torch.cat([x, self.cls_embed(scores.argmax(1))], 1)))
        return F.softmax(scores, 1), F.softmax(self.attr_linear2(hidden), 1)


def cell_anchors():
    """The 12 anchors of the first cell, by ratio and then scale."""
    anchors = []
    for ratio in (0.5, 1.0, 2.0):
        w = round(math.sqrt(256 / ratio))
        h = round(w * ratio)
        for scale in (4, 8, 16, 32):
            anchors.append([7.5 - (w * scale - 1) / 2, 7.5 - (h * scale - 1) / 2])
            anchors[-1] += [15 - anchors[-1][0], 15 - anchors[-1][1]]
    return torch.tensor(anchors)


def all_anchors(rows, columns):
    """Those of each cell, by row, column and anchor."""
    y, x = torch.meshgrid(16 * torch.arange(rows), 16 * torch.arange(columns), indexing="ij")
    shifts = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (shifts + cell_anchors()).reshape(-1, 4)


def decode(anchors, deltas):
    w, h = anchors[:, 2] - anchors[:, 0] + 1, anchors[:, 3] - anchors[:, 1] + 1
    x = anchors[:, 0] + 0.5 * w + deltas[:, 0] * w
    y = anchors[:, 1] + 0.5 * h + deltas[:, 1] * h
    limit = math.log(1000 / 16)
    w, h = w * deltas[:, 2].clamp(max=limit).exp(), h * deltas[:, 3].clamp(max=limit).exp()
    return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], 1)


def suppress(boxes, scores, threshold):
    """torchvision's suppression with the last pixel inside a box; of equal scores the first box is the better."""
    from torchvision.ops import nms

    return nms(boxes + torch.tensor([0.0, 0.0, 1.0, 1.0]), scores, threshold)


def pool(feature_map, boxes):
    from torchvision.ops import roi_pool

    return roi_pool(feature_map, [boxes], 14, 1 / 16)


class FasterRCNN(nn.Module):
    """The whole network; the methods are its steps, for one picture [1, 3, height, width]."""

    def __init__(
        self, blocks=(3, 4, 23, 3), width=64, channels=512, classes=1600, attributes=400, candidates=6000, proposals=300
    ):
        super().__init__()
        self.candidates, self.proposals = candidates, proposals
        self.backbone = Backbone(blocks, width)
        self.proposal_generator = nn.ModuleDict({"rpn_head": RPNHead(16 * width, channels)})
        self.roi_heads = nn.ModuleDict(
            {
                "res5": stage(16 * width, 8 * width, blocks[3], 1, dilation=2),
                "box_predictor": Predictor(32 * width, classes, attributes),
            }
        )
        self.suppress, self.pool = suppress, pool

    def propose(self, feature_map, size, scale):
        scores, deltas = self.proposal_generator["rpn_head"](feature_map)
        boxes = decode(all_anchors(*feature_map.shape[2:]), deltas)
        last = torch.tensor([size[1] - 1.0, size[0] - 1.0])
        boxes = torch.minimum(boxes.clamp(min=0), last.repeat(2))
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        large = (sides >= 16 * scale).all(1)
        scores, boxes = scores[large], boxes[large]
        order = scores.sort(descending=True, stable=True).indices[: self.candidates]
        kept = self.suppress(boxes[order], scores[order], 0.7)[: self.proposals]
        return boxes[order][kept]

    def features(self, pooled, chunk=20):
        res5 = self.roi_heads["res5"]
        return torch.cat([res5(part).mean((2, 3)) for part in pooled.split(chunk)])

    def confidences(self, boxes, scores):
        best = torch.zeros(len(boxes))
        for c in range(1, scores.shape[1]):
            kept = self.suppress(boxes, scores[:, c], 0.3)
            best[kept] = torch.maximum(best[kept], scores[kept, c])
        return best

    def choose(self, confidence, fewest, most, threshold=0.2):
        num = int((confidence >= threshold).sum().clamp(fewest, most))
        return confidence.sort(descending=True, stable=True).indices[:num]

    @torch.no_grad()
    def forward(self, picture, scale, fewest=36, most=36):
        """The regions of a picture, best first: boxes, features, classes, their scores, attributes, their scores."""
        feature_map = self.backbone(picture)
        boxes = self.propose(feature_map, picture.shape[2:], scale)
        features = self.features(self.pool(feature_map, boxes))
        scores, attributes = self.roi_heads["box_predictor"](features)
        boxes = boxes / scale
        chosen = self.choose(self.confidences(boxes, scores), fewest, most)
        found = scores[chosen, 1:].max(1), attributes[chosen, 1:].max(1)
        return boxes[chosen], features[chosen], *(x for pair in found for x in (pair.indices, pair.values))
