"""Files of the detector's weights: three formats give one network; a file that is none of them is refused by name."""

import pathlib
import pickle
import subprocess
import zipfile

import jax
import numpy as np
import pytest

from benchmarks.detector_state import random_state
from mhcvse_jax.detection.anchors import cell_anchors
from mhcvse_jax.detection.faster_rcnn import Architecture, FasterRCNN
from mhcvse_jax.detection.selection import FIXED_36
from mhcvse_jax.detection.weights import read_weights
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.torch_file import write_torch_file

ARCHITECTURE = Architecture((1, 2, 1, 2), 2, 7, 11, 5)
HEAD, PREDICTOR = "proposal_generator.rpn_head", "roi_heads.box_predictor"
CELL_ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"
CONFIG = """\
model: {device: cpu, max_pool: true, pixel_mean: [102.9801, 115.9465, 122.7717]}
RESNETS: {DEPTH: 20, STRIDE_IN_1X1: true}
roi_box_head: {attr: true, num_attrs: 5, pooler_resolution: 14, res5halve: false}
roi_heads: {num_classes: 11}
"""


@pytest.fixture(scope="module")
def caffe():
    return random_state(ARCHITECTURE, 1)


@pytest.fixture(scope="module")
def detectron2(caffe):
    """The same network as detectron2 has it, from the file's description, without the package's table."""
    renamed = {
        f"{PREDICTOR}.cls_embed.": f"{PREDICTOR}.cls_embedding.",
        f"{PREDICTOR}.attr_linear1.": f"{PREDICTOR}.fc_attr.",
        f"{PREDICTOR}.attr_linear2.": f"{PREDICTOR}.attr_score.",
    }
    state = {}
    for name, array in caffe.items():
        if name.startswith(f"{HEAD}.objectness_logits"):
            array = array[12:] - array[:12]
            array = np.stack([array[ratio * 4 + scale] for scale in range(4) for ratio in range(3)])
        elif name.startswith(f"{HEAD}.anchor_deltas"):
            first = [4 * (ratio * 4 + scale) for scale in range(4) for ratio in range(3)]
            array = np.concatenate([array[place : place + 4] for place in first])
        elif name.startswith((f"{PREDICTOR}.cls_score", f"{PREDICTOR}.cls_embed", f"{PREDICTOR}.attr_linear2")):
            array = np.concatenate([array[1:], array[:1]])
        elif name.startswith(f"{PREDICTOR}.bbox_pred"):
            array = array[4:]
        for old, new in renamed.items():
            name = name.replace(old, new)
        state[name] = array
    return state


@pytest.fixture
def pickled(tmp_path):
    def write(state, name="faster_rcnn_from_caffe_attr.pkl", **more):
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"model": state, **more}))
        return path

    return write


def assert_equal(found, expected):
    assert found.architecture == expected.architecture
    assert jax.tree.structure(found.variables) == jax.tree.structure(expected.variables)
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)


def test_three_formats_give_one_network(caffe, detectron2, pickled, tmp_path):
    path = tmp_path / "bua.pth"
    write_torch_file(path, {"model": caffe})
    expected = read_weights(path, ARCHITECTURE)
    shapes = jax.eval_shape(
        FasterRCNN(ARCHITECTURE, FIXED_36).init, jax.random.key(0), np.zeros((64, 64, 3)), np.zeros(2, int), 1.0
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), expected.variables) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )

    assert_equal(read_weights(pickled(detectron2, __author__="UNC", matching_heuristics=True), ARCHITECTURE), expected)
    anchors = {CELL_ANCHORS: cell_anchors().reshape(3, 4, 4).transpose(1, 0, 2).reshape(12, 4) - 7.5}
    means = np.array([102.9801, 115.9465, 122.7717], np.float32).reshape(3, 1, 1)
    pixels = {"pixel_mean": means, "pixel_std": np.ones((3, 1, 1), np.float32)}
    write_torch_file(
        tmp_path / "pytorch_model.bin", {f"module.{k}": v for k, v in (detectron2 | anchors | pixels).items()}
    )
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert_equal(read_weights(tmp_path, ARCHITECTURE), expected)


def test_the_order_of_anchors_is_that_of_the_file(caffe, detectron2, pickled):
    shuffled = np.random.default_rng(3).permutation(12)
    state = dict(detectron2)
    state[CELL_ANCHORS] = cell_anchors().reshape(3, 4, 4).transpose(1, 0, 2).reshape(12, 4)[shuffled] * np.float32(1.01)
    for name in ("weight", "bias"):
        state[f"{HEAD}.objectness_logits.{name}"] = state[f"{HEAD}.objectness_logits.{name}"][shuffled]
        deltas = state[f"{HEAD}.anchor_deltas.{name}"]
        state[f"{HEAD}.anchor_deltas.{name}"] = deltas.reshape(12, 4, -1)[shuffled].reshape(deltas.shape)
    assert_equal(read_weights(pickled(state), ARCHITECTURE), read_weights(pickled(caffe, "bua.pkl"), ARCHITECTURE))
    state[CELL_ANCHORS] = state[CELL_ANCHORS] * np.float32(2)
    with pytest.raises(InputError, match=r"cell_anchors\.0 are of other sides"):
        read_weights(pickled(state), ARCHITECTURE)


def test_a_file_without_attributes_has_none(detectron2, pickled):
    heads = tuple(f"{PREDICTOR}.{name}." for name in ("cls_embedding", "fc_attr", "attr_score"))
    weights = read_weights(pickled({k: v for k, v in detectron2.items() if not k.startswith(heads)}), ARCHITECTURE)
    assert weights.architecture == ARCHITECTURE._replace(num_attributes=0)
    assert "attribute_scores" not in weights.variables["params"]


class Runs:
    def __reduce__(self):
        return subprocess.call, (["touch", "/nowhere"],)


def changed(state, name, value):
    return {**state, name: value}


def without(state, *names):
    return {name: array for name, array in state.items() if name not in names}


NORM = "backbone.res3.1.conv2.norm"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, f"{NORM}.running_mean"), rf"{NORM}\.running_mean is missing; expected 4"),
        (
            lambda s: changed(s, "backbone.res3.2.conv1.weight", np.ones((4, 16, 1, 1), np.float32)),
            r"1 tensors are none of this network's \(backbone\.res3\.2\.conv1\.weight\); expected a Faster R-CNN",
        ),
        (
            lambda s: changed(s, "backbone.stem.conv1.weight", s["backbone.stem.conv1.weight"][:, :, :3]),
            r"backbone\.stem\.conv1\.weight is 2 x 3 x 3 x 7; expected 2 x 3 x 7 x 7",
        ),
        (
            lambda s: changed(s, f"{HEAD}.objectness_logits.bias", np.zeros(15, np.float32)),
            r"objectness_logits\.bias is 15; expected 12",
        ),
        (lambda s: changed(s, f"{NORM}.bias", np.full(4, np.nan, np.float32)), "bias is float32, or not finite"),
        (lambda s: changed(s, f"{NORM}.bias", np.zeros(4, np.int64)), "bias is int64"),
        (lambda s: changed(s, f"{NORM}.running_var", np.full(4, -1, np.float32)), "running_var has a value below 0"),
        (
            lambda s: changed(s, "pixel_mean", np.array([103.5, 116.3, 123.7], np.float32).reshape(3, 1, 1)),
            r"pixel_mean is \[103\.5",
        ),
        (lambda s: changed(s, "code", Runs()), r"holds subprocess\.call, expected only arrays"),
        (lambda s: changed(s, "epoch", 3), r"holds keys backbone\.stem.*; expected tensors by name"),
        (lambda s: [1, 2], "holds a list; expected tensors by name"),
    ],
)
def test_another_network_or_code_is_refused_by_name(detectron2, pickled, change, message):
    path = pickled(change(detectron2))
    with pytest.raises(InputError, match=message) as error:
        read_weights(path, ARCHITECTURE)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_damage_is_refused(caffe, detectron2, pickled, tmp_path):
    path = pickled(detectron2)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="not a complete pickle of arrays"):
        read_weights(path, ARCHITECTURE)
    path = tmp_path / "bua.pth"
    write_torch_file(path, {"model": caffe})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"not a whole file of torch\.save"):
        read_weights(path, ARCHITECTURE)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": Runs()}))
    with pytest.raises(InputError, match=r"holds subprocess\.call"):
        read_weights(path, ARCHITECTURE)
    with pytest.raises(InputError, match=r"none\.pth: cannot be read"):
        read_weights(tmp_path / "none.pth", ARCHITECTURE)
    assert not pathlib.Path("/nowhere").exists()


@pytest.mark.parametrize(
    ("line", "other", "message"),
    [
        ("max_pool: true", "max_pool: false", "model.max_pool is False; expected True"),
        ("DEPTH: 20", "DEPTH: 50", "resnets.depth is 50; expected 20"),
        ("num_attrs: 5", "num_attrs: 7", "roi_box_head.num_attrs is 7; expected 5"),
        ("{num_classes: 11}", "{num_classes: [", "config.yaml: cannot be read"),
    ],
)
def test_a_config_of_another_network_is_refused(detectron2, tmp_path, line, other, message):
    write_torch_file(tmp_path / "pytorch_model.bin", detectron2)
    (tmp_path / "config.yaml").write_text(CONFIG.replace(line, other))
    with pytest.raises(InputError, match=message) as error:
        read_weights(tmp_path, ARCHITECTURE)
    assert "\n" not in str(error.value)
