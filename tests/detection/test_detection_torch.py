"""The detector against the same network in PyTorch, on odd sizes, with equal scores, step by step and as a whole."""

import functools

import detection_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.detector_state import random_state
from mhcvse_jax.detection import proposals as proposals_lib
from mhcvse_jax.detection.faster_rcnn import Architecture, FasterRCNN
from mhcvse_jax.detection.proposals import Search
from mhcvse_jax.detection.resnet import map_size
from mhcvse_jax.detection.roi_pool import RoIPool
from mhcvse_jax.detection.selection import Choice, choose, confidences
from mhcvse_jax.detection.weights import read_weights
from mhcvse_jax.files.torch_file import write_torch_file

torch = pytest.importorskip("torch")
torch_faster_rcnn = pytest.importorskip("benchmarks.torch_faster_rcnn")

ARCHITECTURE = Architecture((1, 2, 2, 2), 4, 23, 29, 13)
SEARCH = Search(num_candidates=211, num_proposals=37)
CHOICE = Choice(11, 19, 0.2)
CANVAS = (99, 117)
SIZES = ((99, 67), (61, 117), (98, 112))
SCALE = np.float32(1.7)


def has_torchvision():
    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError):  # the latter where it was built for another PyTorch
        return False
    return True


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The one in PyTorch, and ours with its weights. Five of the twelve anchors have the same score everywhere."""
    state = random_state(ARCHITECTURE, 5)
    logits = state["proposal_generator.rpn_head.objectness_logits.weight"]
    logits[[2, 3, 5, 7, 9]] = logits[[14, 15, 17, 19, 21]]
    path = tmp_path_factory.mktemp("weights") / "bua.pth"
    write_torch_file(path, {"model": state})
    weights = read_weights(path, ARCHITECTURE)
    theirs = torch_faster_rcnn.FasterRCNN(*ARCHITECTURE, SEARCH.num_candidates, SEARCH.num_proposals).eval()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    if not has_torchvision():
        theirs.suppress = lambda boxes, scores, threshold: torch.tensor(
            oracle.nms(boxes.numpy(), scores.numpy(), threshold), dtype=torch.int64
        )
        theirs.pool = lambda feature_map, boxes: torch.from_numpy(
            oracle.roi_pool(feature_map[0].permute(1, 2, 0).numpy(), boxes.numpy())
        ).permute(0, 3, 1, 2)
    return theirs, FasterRCNN(ARCHITECTURE, CHOICE, SEARCH, chunk=5), weights.variables


def picture(size):
    """A picture and its canvas."""
    pixels = np.random.default_rng(size[0]).uniform(-100, 100, (*size, 3)).astype(np.float32)
    canvas = np.zeros((*CANVAS, 3), np.float32)
    canvas[: size[0], : size[1]] = pixels
    return torch.from_numpy(pixels).permute(2, 0, 1)[None], canvas


def array(tensor):
    return tensor.detach().numpy()


@torch.no_grad()
def test_feature_maps_proposals_features_and_choice(networks):
    theirs, ours, variables = networks
    trunk = jax.jit(functools.partial(ours.apply, method=lambda module, *x: module.trunk(*x)))
    propose = jax.jit(functools.partial(proposals_lib.propose, search=SEARCH))
    pool = jax.jit(lambda feature_map, size, boxes: RoIPool(feature_map, size, 14)(boxes))
    for size in SIZES:
        pixels, canvas = picture(size)
        feature_map = theirs.backbone(pixels)
        rows, columns = feature_map.shape[2:]
        assert map_size(np.array(size)).tolist() == [rows, columns]
        found = trunk(variables, canvas, np.array(size))
        assert found[:rows, :columns] == pytest.approx(array(feature_map[0].permute(1, 2, 0)), abs=1e-4)

        # From here on each step is given what the reference's step before gave: near ties stay as they are.
        padded = np.zeros(found.shape, np.float32)
        padded[:rows, :columns] = array(feature_map[0].permute(1, 2, 0))
        scores, deltas = theirs.proposal_generator["rpn_head"](feature_map)
        objectness = np.full((*found.shape[:2], 12), 99.0, np.float32)
        objectness[:rows, :columns] = scores.reshape(rows, columns, 12)
        shifts = np.zeros((*found.shape[:2], 12, 4), np.float32)
        shifts[:rows, :columns] = deltas.reshape(rows, columns, 12, 4)
        expected = theirs.propose(feature_map, size, float(SCALE))
        proposed = propose(objectness, shifts, np.array([rows, columns]), np.array(size), SCALE)
        assert proposed.valid.sum() == len(expected) > 19
        assert np.asarray(proposed.boxes)[proposed.valid] == pytest.approx(array(expected), abs=1e-3)
        assert len(np.unique(objectness[:rows, :columns])) < rows * columns * 8

        boxes = np.array(proposed.boxes)  # PyTorch wants to be able to write
        pooled = pool(padded, np.array([rows, columns]), boxes)
        assert np.array_equal(pooled, array(theirs.pool(feature_map, torch.from_numpy(boxes)).permute(0, 2, 3, 1)))


@torch.no_grad()
def test_choice(networks):
    theirs, *_ = networks
    rng = np.random.default_rng(11)
    corners = rng.uniform(0, 100, (37, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    scores = (rng.integers(0, 40, (37, 30)) / 40).astype(np.float32)
    expected = theirs.confidences(torch.from_numpy(boxes), torch.from_numpy(scores))
    found = jax.jit(confidences)(boxes, np.ones(37, bool), scores[:, 1:])
    assert np.array_equal(found, array(expected))
    for choice in (CHOICE, Choice(11, 11, 0.2), Choice(11, 19, 2.0)):
        chosen = choose(found, jnp.ones(37, bool), choice)
        assert np.array_equal(chosen.places[: chosen.num], array(theirs.choose(expected, *choice)))


def test_regions_of_whole_pictures(networks):
    theirs, ours, variables = networks
    detect = jax.jit(ours.apply)
    for size in SIZES:
        pixels, canvas = picture(size)
        num, *found = detect(variables, canvas, np.array(size), SCALE)
        expected = [array(x) for x in theirs(pixels, float(SCALE), CHOICE.fewest, CHOICE.most)]
        assert num == len(expected[0])
        distances = np.abs(np.asarray(found[0])[None, :num] - expected[0][:, None]).max(axis=2)
        same = distances.argmin(axis=1)  # near ties may have changed places
        assert distances.min(axis=1).max() < 1e-3
        assert len(set(same.tolist())) == num
        for mine, wanted in zip(found, expected, strict=True):
            assert np.asarray(mine)[same] == pytest.approx(wanted, abs=1e-3 if mine is found[0] else 1e-4)
        assert np.asarray(found[3])[:num] == pytest.approx(np.asarray(found[3])[same], abs=1e-4)


@pytest.mark.skipif(not has_torchvision(), reason="torchvision is not here, or not for this PyTorch")
def test_loops_equal_torchvision():
    rng = np.random.default_rng(13)
    corners = rng.uniform(0, 199, (61, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    boxes[1::3] = boxes[::3][:20]
    scores = (rng.integers(0, 9, 61) / 9).astype(np.float32)
    kept = torch_faster_rcnn.suppress(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5)
    assert array(kept).tolist() == oracle.nms(boxes, scores, 0.5)
    feature_map = rng.standard_normal((3, 13, 11), dtype=np.float32)
    pooled = torch_faster_rcnn.pool(torch.from_numpy(feature_map)[None], torch.from_numpy(boxes))
    assert np.array_equal(array(pooled.permute(0, 2, 3, 1)), oracle.roi_pool(feature_map.transpose(1, 2, 0), boxes))
