"""Each step of the detector against loops in NumPy; what lies beside a picture on its canvas changes nothing."""

import functools

import detection_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mhcvse_jax.detection import boxes as box_lib
from mhcvse_jax.detection import pixels
from mhcvse_jax.detection.anchors import cell_anchors, grid_anchors
from mhcvse_jax.detection.heads import RegionFeatures
from mhcvse_jax.detection.nms import nms
from mhcvse_jax.detection.proposals import Search, propose
from mhcvse_jax.detection.resnet import Bottleneck, Trunk, map_size
from mhcvse_jax.detection.roi_pool import RoIPool
from mhcvse_jax.detection.selection import ADAPTIVE_10_TO_100, FIXED_36, choose, confidences

HIGHEST = lax.Precision.HIGHEST


def random_boxes(rng, num, width, height, smallest=0):
    """Boxes within a picture, and every third one there once more: overlaps of 1, equal scores."""
    corners = rng.uniform(0, 1, (num, 2, 2)) * [width - 1, height - 1]
    boxes = np.concatenate([corners.min(1), np.maximum(corners.max(1), corners.min(1) + smallest)], 1)
    boxes[1::3] = boxes[::3][: len(boxes[1::3])]
    return np.minimum(boxes, [width - 1, height - 1] * 2).astype(np.float32)


def test_anchors_are_those_that_py_faster_rcnn_prints():
    anchors = cell_anchors().reshape(3, 4, 4)
    assert anchors[:, 1:].reshape(-1, 4).tolist() == [
        [-84, -40, 99, 55],
        [-176, -88, 191, 103],
        [-360, -184, 375, 199],
        [-56, -56, 71, 71],
        [-120, -120, 135, 135],
        [-248, -248, 263, 263],
        [-36, -80, 51, 95],
        [-80, -168, 95, 183],
        [-168, -344, 183, 359],
    ]
    assert np.array_equal(anchors[1, 0], [-24, -24, 39, 39])
    grid = grid_anchors(5, 7)
    assert grid.shape == (5, 7, 12, 4)
    assert np.array_equal(grid[3, 2, 5], anchors.reshape(12, 4)[5] + [32, 48, 32, 48])


def test_deltas_move_and_stretch_a_box_about_its_centre():
    box = np.array([10.0, 20.0, 19.0, 39.0], np.float32)  # 10 wide, 20 high, its centre at 15, 30
    moved = jax.jit(box_lib.regress)(box, np.array([0.1, -0.05, np.log(2.0), 99.0], np.float32))
    assert moved == pytest.approx([16 - 10, 29 - 20 * 1000 / 32, 16 + 10, 29 + 20 * 1000 / 32], rel=1e-5)
    boxes = np.array([[6.0, -600.0, 26.0, 650.0], [-3.0, 4.0, 200.0, 5.0]], np.float32)
    assert jax.jit(box_lib.clip)(boxes, np.array([67, 83])).tolist() == [[6, 0, 26, 66], [0, 4, 82, 5]]


@pytest.mark.parametrize(("threshold", "num_kept"), [(0.3, 5), (0.7, 61)])
def test_nms_keeps_what_the_greedy_loop_keeps(threshold, num_kept):
    rng = np.random.default_rng(num_kept)
    boxes, valid = random_boxes(rng, 97, 67, 53), rng.random(97) < 0.9
    expected = oracle.nms(boxes[valid], np.zeros(valid.sum()), threshold)[:num_kept]
    kept = jax.jit(functools.partial(nms, threshold=threshold, num_kept=num_kept, block_size=13))(boxes, valid)
    assert np.array_equal(kept.places[kept.valid], np.flatnonzero(valid)[expected])
    assert len(expected) == num_kept or num_kept == 61


def test_nms_holds_no_array_of_boxes_by_boxes():
    num = 6007
    keep = functools.partial(nms, threshold=0.7, num_kept=300)
    jaxpr = str(jax.make_jaxpr(keep)(jnp.zeros((num, 4)), jnp.ones(num, bool)))
    padded = -(-num // 256) * 256
    assert f"[{padded},4]" in jaxpr
    assert f"[{padded},{padded}" not in jaxpr
    assert f"[{num},{num}" not in jaxpr


@pytest.mark.parametrize(("rows", "columns", "beside"), [(5, 7, 2), (31, 3, 0), (1, 53, 3), (11, 13, 0)])
def test_roi_pool_equals_loops_and_reads_nothing_beside_the_picture(rows, columns, beside):
    rng = np.random.default_rng(rows)
    feature_map = np.full((rows + beside, columns + beside, 3), 1e9, np.float32)
    feature_map[:rows, :columns] = rng.standard_normal((rows, columns, 3))
    width, height = 16 * columns, 16 * rows
    boxes = random_boxes(rng, 23, width, height)
    boxes[0], boxes[3], boxes[6] = [0, 0, width - 1, height - 1], [8, 8, 8, 8], [7.999, 0, 23.999, 8]
    boxes[9] = [width - 1, height - 1, width - 1, height - 1]  # past the last cell: every bin is empty
    boxes[12] = [width / 2, height / 3, width - 1, height - 1]  # some are
    found = jax.jit(lambda m, size, boxes: RoIPool(m, size, 14)(boxes))(feature_map, np.array([rows, columns]), boxes)
    expected = oracle.roi_pool(feature_map[:rows, :columns], boxes)
    assert np.array_equal(found, expected)
    assert not expected[9].any()


def test_confidence_is_the_best_score_over_the_classes_that_keep_a_box():
    rng = np.random.default_rng(2)
    boxes = random_boxes(rng, 29, 67, 53, smallest=11)
    scores = rng.integers(1, 19, (29, 5)).astype(np.float32) / 19  # many are equal
    valid = np.arange(29) < 23
    found = jax.jit(confidences)(boxes, valid, scores)
    assert np.array_equal(found[:23], oracle.confidences(boxes[:23], scores[:23]))
    assert len(set(found[:23].tolist())) > 3


def test_choice_by_number_and_by_threshold():
    rng = np.random.default_rng(3)
    confidence = rng.integers(0, 11, 300).astype(np.float32) / 20
    in_order = np.argsort(-confidence, kind="stable")
    everyone = jnp.ones(300, bool)
    chosen = choose(confidence, everyone, FIXED_36)
    assert int(chosen.num) == 36
    assert np.array_equal(chosen.places, in_order[:36])
    for scale, num in ((1.0, 100), (0.42, (0.42 * confidence >= 0.2).sum()), (0.1, 10)):
        chosen = choose(jnp.asarray(confidence * np.float32(scale)), everyone, ADAPTIVE_10_TO_100)
        assert int(chosen.num) == num
    assert 10 < (0.42 * confidence >= 0.2).sum() < 100
    few = choose(jnp.asarray(confidence), jnp.arange(300) < 7, FIXED_36)
    assert int(few.num) == 7
    assert sorted(few.places[:7].tolist()) == list(range(7))


def test_small_boxes_are_dropped_unless_all_are_small():
    rng = np.random.default_rng(4)
    objectness, deltas = (rng.standard_normal(shape, dtype=np.float32) for shape in ((7, 5, 12), (7, 5, 12, 4)))
    size = np.array([109, 79])
    find = jax.jit(functools.partial(propose, search=Search(num_candidates=97, num_proposals=31)))
    found = find(objectness, 0.1 * deltas, map_size(size), size, 2.5)
    boxes = np.asarray(found.boxes)[found.valid]
    assert len(boxes) > 3
    assert (boxes[:, 2:] - boxes[:, :2] + 1).min() >= 16 * 2.5
    assert boxes.min() == 0
    assert np.array_equal(boxes.max(axis=0)[2:], [78, 108])
    assert find(objectness, 0.1 * deltas, map_size(size), size, 60.0).valid.any()  # of a picture of 2 x 1 pixels


@pytest.mark.parametrize(("height", "width"), [(37, 53), (113, 61), (40, 7)])
def test_pixels_are_scaled_by_interpolation_and_put_on_the_smallest_canvas(height, width, monkeypatch):
    monkeypatch.setattr(pixels, "SHORT_SIDE", 29)
    monkeypatch.setattr(pixels, "LONG_SIDE", 43)
    picture = np.random.default_rng(5).integers(0, 256, (height, width, 3)).astype(np.uint8)
    canvas = pixels.prepare(picture, ((50, 50), (29, 47), (43, 31), (44, 31)))
    scale = min(29 / min(height, width), 43 / max(height, width)) if height != 37 else 29 / 37
    rows, columns = (max(round(side * scale), 1) for side in (height, width))
    assert canvas.scale == np.float32(scale)
    assert canvas.size.tolist() == [rows, columns]
    assert canvas.pixels.shape == {37: (29, 47, 3), 113: (43, 31, 3), 40: (43, 31, 3)}[height]
    expected = oracle.resize(picture[..., ::-1], rows, columns, scale) - [102.9801, 115.9465, 122.7717]
    assert canvas.pixels[:rows, :columns] == pytest.approx(expected, abs=1e-3)
    assert not canvas.pixels[rows:].any()
    assert not canvas.pixels[:, columns:].any()


def test_sizes_are_those_of_the_published_features():
    for (height, width), (rows, columns) in {
        (375, 500): (600, 800),
        (500, 333): (901, 600),
        (480, 1200): (400, 1000),
        (224, 224): (600, 600),
        (1, 1): (600, 600),
        (50, 20_000): (2, 1000),
        (1, 5000): (1, 1000),
    }.items():
        canvas = pixels.prepare(np.zeros((height, width, 3), np.uint8))
        assert canvas.size.tolist() == [rows, columns]
        assert canvas.pixels.shape[:2] in pixels.CANVASES


def test_the_dilated_fifth_stage_is_an_ordinary_one_on_every_second_cell():
    pooled = np.random.default_rng(6).standard_normal((3, 14, 14, 5), dtype=np.float32)
    dilated = RegionFeatures(2, 7, jnp.float32, HIGHEST)
    variables = jax.jit(dilated.init)(jax.random.key(0), pooled)

    def ordinary(pooled):
        parts = []
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            x = pooled[:, row::2, column::2]
            for block in range(2):
                module = Bottleneck(7, 1, 1, block == 0, jnp.float32, HIGHEST)
                x = module.apply({"params": variables["params"][f"res5_{block}"]}, x)
            parts.append(x.mean(axis=(1, 2)))
        return sum(parts) / 4

    assert jax.jit(dilated.apply)(variables, pooled) == pytest.approx(np.asarray(jax.jit(ordinary)(pooled)), abs=1e-5)


def test_a_feature_map_does_not_depend_on_the_canvas():
    trunk = Trunk((1, 2, 2), 4, jnp.float32, HIGHEST)
    apply = jax.jit(trunk.apply)
    variables = jax.jit(trunk.init)(jax.random.key(0), np.zeros((67, 53, 3)), np.array([67, 53]))
    variables = jax.tree.map(lambda x: x + 0.01, variables)  # biases: what lies beside would not stay 0
    for height, width in ((67, 53), (64, 47), (61, 2), (1, 50)):
        picture = np.random.default_rng(height).standard_normal((height, width, 3), dtype=np.float32)
        maps = []
        for canvas in np.zeros((67, 53, 3), np.float32), np.zeros((97, 111, 3), np.float32):
            canvas[:height, :width] = picture
            maps.append(np.asarray(apply(variables, canvas, np.array([height, width]))))
        rows, columns = map_size(np.array([height, width])).tolist()
        assert maps[0][:rows, :columns] == pytest.approx(maps[1][:rows, :columns], abs=1e-5)
        assert maps[0][:rows, :columns].max() > 0.1
        assert not maps[1][rows:].any()
        assert not maps[1][:, columns:].any()


def test_bfloat16_gives_nearly_the_features_of_float32():
    rng = np.random.default_rng(7)
    canvas = rng.standard_normal((35, 37, 3), dtype=np.float32)
    features = []
    for dtype in (jnp.float32, jnp.bfloat16):
        trunk, head = (
            Trunk((1, 1, 1), 4, dtype, HIGHEST),
            RegionFeatures(1, 7, dtype, HIGHEST),
        )
        pooled = jnp.asarray(rng.standard_normal((2, 14, 14, 64)), dtype)
        if not features:
            keys = jax.random.split(jax.random.key(0))
            variables = [jax.jit(trunk.init)(keys[0], canvas, np.array([35, 37])), jax.jit(head.init)(keys[1], pooled)]
            inputs = pooled
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
        feature_map = jax.jit(trunk.apply)(variables[0], canvas, np.array([35, 37]))
        assert feature_map.dtype == dtype
        features.append((feature_map, jax.jit(head.apply)(variables[1], inputs.astype(dtype))))
        assert features[-1][1].dtype == jnp.float32
    for full, half in zip(*features, strict=True):
        full, half = (np.asarray(x, np.float64).ravel() for x in (full, half))
        assert full @ half / np.linalg.norm(full) / np.linalg.norm(half) > 0.999
        assert not np.array_equal(full, half)
