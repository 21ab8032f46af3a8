"""The detector's steps once more, slow and obvious: NumPy and loops. Nothing here calls the package."""

import math

import numpy as np


def overlap(a, b):
    """Intersection over union of two boxes whose last pixel is inside."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area_a, area_b = ((x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b))
    return width * height / (area_a + area_b - width * height)


def nms(boxes, scores, threshold):
    """Places of the boxes that stay, the best first; of equal scores the first box is the better."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def round_half_away(x):
    return math.floor(x + 0.5)


def roi_pool(feature_map, boxes, bins=14):
    """[boxes, bins, bins, channels] of a map [rows, columns, channels]; borders of bins in float32, as C has them."""
    rows, columns, channels = feature_map.shape
    pooled = np.zeros((len(boxes), bins, bins, channels), feature_map.dtype)
    for n, box in enumerate(boxes):
        x1, y1, x2, y2 = (round_half_away(float(v) / 16) for v in box)
        step_y = np.float32(max(y2 - y1 + 1, 1)) / np.float32(bins)
        step_x = np.float32(max(x2 - x1 + 1, 1)) / np.float32(bins)
        for i in range(bins):
            top = min(max(math.floor(np.float32(i) * step_y) + y1, 0), rows)
            bottom = min(max(math.ceil(np.float32(i + 1) * step_y) + y1, 0), rows)
            for j in range(bins):
                left = min(max(math.floor(np.float32(j) * step_x) + x1, 0), columns)
                right = min(max(math.ceil(np.float32(j + 1) * step_x) + x1, 0), columns)
                if bottom > top and right > left:
                    pooled[n, i, j] = feature_map[top:bottom, left:right].max(axis=(0, 1))
    return pooled


def confidences(boxes, scores, threshold=0.3):
    """Best score of each box over the classes that keep it."""
    best = np.zeros(len(boxes), np.float32)
    for c in range(scores.shape[1]):
        for i in nms(boxes, scores[:, c], threshold):
            best[i] = max(best[i], scores[i, c])
    return best


def resize(picture, rows, columns, scale):
    """Bilinear interpolation of [height, width, channels], a pixel at a time."""
    height, width = picture.shape[:2]
    result = np.zeros((rows, columns, picture.shape[2]))
    for i in range(rows):
        y = min(max((i + 0.5) / scale - 0.5, 0), height - 1)
        top, bottom = math.floor(y), min(math.floor(y) + 1, height - 1)
        for j in range(columns):
            x = min(max((j + 0.5) / scale - 0.5, 0), width - 1)
            left, right = math.floor(x), min(math.floor(x) + 1, width - 1)
            for a, share_y in ((top, 1 - (y - top)), (bottom, y - top)):
                for b, share_x in ((left, 1 - (x - left)), (right, x - left)):
                    result[i, j] += picture[a, b] * share_y * share_x
    return result
