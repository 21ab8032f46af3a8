"""Weights of the detector in the formats that are in circulation, read without running any code in the files.

There are three kinds of files, with two sets of names:

    faster_rcnn_from_caffe[_attr][_original].pkl   a pickle {"model": {name: array}}; detectron2's names
    pytorch_model.bin, config.yaml                 of frcnn-vg-finetuned (Transformers); detectron2's names
    bua-caffe-frcn-r101-k36.pth and the like       of torch.save, {"model": {name: tensor}}; Caffe's conventions

                         detectron2                              Caffe
    objectness           a logit an anchor                       two: background of all anchors, then object of all
    anchors' order       by scale, then ratio                    by ratio, then scale
    background, none     the last class, the last attribute      the first
    attribute head       cls_embedding, fc_attr, attr_score      cls_embed, attr_linear1, attr_linear2

Each tensor is accounted for: one that is missing, unknown or of another shape is an error that names it.
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import yaml
from flax import traverse_util

from mhcvse_jax.detection.anchors import NUM_ANCHORS, RATIOS, SCALES, cell_anchors
from mhcvse_jax.detection.faster_rcnn import VISUAL_GENOME, Architecture
from mhcvse_jax.detection.pixels import MEANS
from mhcvse_jax.errors import InputError
from mhcvse_jax.files import safe_pickle, torch_file

_BATCH_NORM_EPSILON = 1e-5
_RPN = "proposal_generator.rpn_head"
_PREDICTOR = "roi_heads.box_predictor"
_CAFFE_ATTRIBUTES = ("cls_embed", "attr_linear1", "attr_linear2")  # embedding of the class, hidden layer, scores
_DETECTRON2_ATTRIBUTES = ("cls_embedding", "fc_attr", "attr_score")
_CELL_ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"


class Weights(NamedTuple):
    """What a file holds."""

    variables: dict[str, Any]  # {"params": ...} as `FasterRCNN.apply` takes them, <float32>
    architecture: Architecture  # without attributes where the file has none


class _Layer(NamedTuple):
    """A layer of theirs, and where it stands among our parameters."""

    theirs: str
    ours: str | None  # None: known and not used
    shape: tuple[int, ...]  # of its weight, as PyTorch has it: outputs first
    kind: str = "biased"  # or "normalised", by a batch norm; or "table", the weight alone
    outputs: Callable[[np.ndarray], np.ndarray] = lambda array: array  # makes our outputs of theirs, along axis 0


def read_weights(path: pathlib.Path, architecture: Architecture = VISUAL_GENOME) -> Weights:
    """Returns the parameters in a file.

    Deviation: of two logits an anchor ours is the difference. It orders the anchors as the softmax over the two does,
    but for those that the softmax rounds to equal.

    Args:
      path: one of the files above, or the folder that holds pytorch_model.bin.
      architecture: what it must hold; the attributes alone may be missing.

    Raises:
      InputError: the file is missing, damaged, cut short, or holds code or another network; the message says which.
    """
    if path.is_dir():
        path = path / "pytorch_model.bin"
    tensors = _Tensors(path)
    scores = {f"{_PREDICTOR}.{names[-1]}.weight" for names in (_CAFFE_ATTRIBUTES, _DETECTRON2_ATTRIBUTES)}
    if not scores & tensors.names:
        architecture = architecture._replace(num_attributes=0)
    config = path.with_name("config.yaml")
    if path.name == "pytorch_model.bin" and config.exists():
        _check_config(config, architecture)
    params = {}
    for layer in _layers(tensors, architecture):
        arrays = {name: layer.outputs(array) for name, array in tensors.take_layer(layer).items()}
        if layer.ours is not None:
            params |= {f"{layer.ours}/{name}": array for name, array in _as_flax(layer, arrays).items()}
    _check_pixels(tensors)
    tensors.finish()
    return Weights({"params": traverse_util.unflatten_dict(params, sep="/")}, architecture)


def _layers(tensors: "_Tensors", architecture: Architecture) -> Iterator[_Layer]:
    """Yields all layers of the network, under the names of the file."""
    is_caffe = tensors.length(f"{_RPN}.objectness_logits.bias") == 2 * NUM_ANCHORS
    order = _anchor_order(tensors, is_caffe)
    width, channels = architecture.width, architecture.proposal_channels
    features, embedding, hidden = architecture.features_dim, 4 * width, 8 * width
    num_classes, num_attributes = 1 + architecture.num_classes, 1 + architecture.num_attributes

    yield _Layer("backbone.stem.conv1", "trunk/stem", (width, 3, 7, 7), "normalised")
    inputs = width
    for stage, num_blocks in enumerate(architecture.blocks):
        theirs, ours = f"backbone.res{stage + 2}", f"trunk/res{stage + 2}"
        if stage == 3:
            theirs, ours = "roi_heads.res5", "region_features/res5"
        narrow, wide = width << stage, 4 * width << stage
        for block in range(num_blocks):
            shapes = {"conv1": (narrow, inputs, 1, 1), "conv2": (narrow, narrow, 3, 3), "conv3": (wide, narrow, 1, 1)}
            if block == 0:
                shapes["shortcut"] = (wide, inputs, 1, 1)
            for name, shape in shapes.items():
                yield _Layer(f"{theirs}.{block}.{name}", f"{ours}_{block}/{name}", shape, "normalised")
            inputs = wide

    def objectness(array: np.ndarray) -> np.ndarray:
        return (array[NUM_ANCHORS:] - array[:NUM_ANCHORS] if is_caffe else array)[order]

    def deltas(array: np.ndarray) -> np.ndarray:
        return array.reshape(NUM_ANCHORS, 4, *array.shape[1:])[order].reshape(array.shape)

    yield _Layer(f"{_RPN}.conv", "proposal_head/conv", (channels, features // 2, 3, 3))
    num_logits = NUM_ANCHORS * (1 + is_caffe)
    shape = (num_logits, channels, 1, 1)
    yield _Layer(f"{_RPN}.objectness_logits", "proposal_head/objectness", shape, outputs=objectness)
    shape = (4 * NUM_ANCHORS, channels, 1, 1)
    yield _Layer(f"{_RPN}.anchor_deltas", "proposal_head/deltas", shape, outputs=deltas)

    def first(array: np.ndarray) -> np.ndarray:
        return array if is_caffe else np.roll(array, 1, axis=0)

    yield _Layer(f"{_PREDICTOR}.cls_score", "class_scores/score", (num_classes, features), outputs=first)
    # Regions are the proposals themselves: what would move one to the box of its class is not used.
    yield _Layer(f"{_PREDICTOR}.bbox_pred", None, (4 * (num_classes if is_caffe else num_classes - 1), features))
    if architecture.num_attributes:
        table, middle, score = _CAFFE_ATTRIBUTES if is_caffe else _DETECTRON2_ATTRIBUTES
        ours = "attribute_scores"
        shape = (num_classes, embedding)
        yield _Layer(f"{_PREDICTOR}.{table}", f"{ours}/class_embedding", shape, "table", first)
        yield _Layer(f"{_PREDICTOR}.{middle}", f"{ours}/hidden", (hidden, features + embedding))
        yield _Layer(f"{_PREDICTOR}.{score}", f"{ours}/score", (num_attributes, hidden), outputs=first)


def _as_flax(layer: _Layer, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if layer.kind == "table":
        return {"embedding": arrays["weight"]}
    axes = (2, 3, 1, 0) if len(layer.shape) == 4 else (1, 0)
    return {"kernel": arrays["weight"].transpose(axes), "bias": arrays["bias"]}


class _Tensors:
    """The tensors of a file; each one that is used is ticked off."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._held = _read_tensors(path)
        self.names = set(self._held)

    def length(self, name: str) -> int:
        """Returns the length of a vector's, 0 where there is none."""
        return self._held[name].size if name in self._held else 0

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns a tensor <float32>; raises InputError where it is missing, of another shape, or not finite."""
        if name not in self._held:
            raise InputError(f"{self._path}: {name} is missing; expected {_whole(shape)}")
        array = self._held.pop(name)
        if array.shape != shape:
            raise InputError(f"{self._path}: {name} is {_whole(array.shape)}; expected {_whole(shape)}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise InputError(f"{self._path}: {name} is {array.dtype}, or not finite; expected finite real numbers")
        return array.astype(np.float32)

    def take_if_there(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Returns a tensor, or None where there is none of this name."""
        return self.take(name, shape) if name in self._held else None

    def take_layer(self, layer: _Layer) -> dict[str, np.ndarray]:
        """Returns {weight, bias} of a layer, a batch norm made part of them; a table has no bias."""
        weight = self.take(f"{layer.theirs}.weight", layer.shape)
        if layer.kind == "table":
            return {"weight": weight}
        outputs = layer.shape[:1]
        if layer.kind == "biased":
            return {"weight": weight, "bias": self.take(f"{layer.theirs}.bias", outputs)}
        norm = f"{layer.theirs}.norm"
        scale, bias, mean, variance = (
            self.take(f"{norm}.{name}", outputs) for name in ("weight", "bias", "running_mean", "running_var")
        )
        self._held.pop(f"{norm}.num_batches_tracked", None)
        if variance.min() < 0:
            raise InputError(f"{self._path}: {norm}.running_var has a value below 0; expected variances")
        scale = scale / np.sqrt(variance + np.float32(_BATCH_NORM_EPSILON))
        return {"weight": weight * scale.reshape(-1, 1, 1, 1), "bias": bias - mean * scale}

    def finish(self) -> None:
        """Raises InputError where a tensor was not taken."""
        if self._held:
            some = ", ".join(list(self._held)[:3]) + (", ..." if len(self._held) > 3 else "")
            raise InputError(
                f"{self._path}: {len(self._held)} tensors are none of this network's ({some}); "
                "expected a Faster R-CNN with a ResNet-101 C4, trained on Visual Genome"
            )

    def refuse(self, what: str) -> InputError:
        """Returns the error that names the file."""
        return InputError(f"{self._path}: {what}")


def _whole(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"


def _read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns a file's tensors by name, those of a data-parallel model without its prefix."""
    held = torch_file.read_torch_file(path) if torch_file.is_torch_file(path) else safe_pickle.load_arrays(path)
    model = held.get("model", held) if isinstance(held, dict) else held
    if not isinstance(model, dict) or not all(
        isinstance(name, str) and isinstance(tensor, np.ndarray) for name, tensor in model.items()
    ):
        found = f"keys {', '.join(map(str, model))}"[:200] if isinstance(model, dict) else f"a {type(model).__name__}"
        raise InputError(f"{path}: holds {found}; expected tensors by name, or these under the key model")
    return {name.removeprefix("module."): tensor for name, tensor in model.items()}


def _anchor_order(tensors: _Tensors, is_caffe: bool) -> np.ndarray:
    """Returns <int>[12], the place of each of our anchors among theirs.

    Read off the anchors that the file holds, if it does: by their sides, which differ a little between the two rules.
    """
    theirs = tensors.take_if_there(_CELL_ANCHORS, (NUM_ANCHORS, 4))
    if theirs is None:
        by_ratio = np.arange(NUM_ANCHORS)
        return by_ratio if is_caffe else by_ratio.reshape(len(SCALES), len(RATIOS)).T.reshape(-1)
    sides = [np.log(np.maximum(boxes[:, 2:] - boxes[:, :2], 1)) for boxes in (cell_anchors(), theirs)]
    distances = np.abs(sides[0][:, None] - sides[1][None]).max(axis=-1)
    order = distances.argmin(axis=1)
    if len(set(order)) != NUM_ANCHORS or distances.min(axis=1).max() > 0.1:  # neighbours differ by 0.69
        raise tensors.refuse(f"{_CELL_ANCHORS} are of other sides; expected 4, 8, 16, 32 times 16, ratios 0.5, 1, 2")
    return order


def _check_pixels(tensors: _Tensors) -> None:
    """Raises InputError if the network was trained on pixels with another scale than ours."""
    for name, expected in {"pixel_mean": MEANS, "pixel_std": (1.0, 1.0, 1.0)}.items():
        found = tensors.take_if_there(name, (3, 1, 1))
        if found is not None and not np.allclose(found.reshape(3), expected, atol=0.01):
            raise tensors.refuse(f"{name} is {found.reshape(3).tolist()}; expected {list(expected)}")


def _check_config(path: pathlib.Path, architecture: Architecture) -> None:
    """Raises InputError if a config.yaml of Transformers describes another network; it may leave keys out."""
    expected: dict[tuple[str, str], Any] = {
        ("model", "max_pool"): True,  # Caffe's
        ("resnets", "depth"): 2 + 3 * sum(architecture.blocks),
        ("resnets", "stride_in_1x1"): True,
        ("roi_box_head", "pooler_resolution"): 14,
        ("roi_box_head", "res5halve"): False,
        ("roi_heads", "num_classes"): architecture.num_classes,
    }
    if architecture.num_attributes:
        expected["roi_box_head", "num_attrs"] = architecture.num_attributes
    try:
        config = _lower(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    for (section, key), wanted in expected.items():
        held = config.get(section) if isinstance(config, dict) else None
        found = held.get(key, wanted) if isinstance(held, dict) else wanted
        if found != wanted:
            raise InputError(f"{path}: {section}.{key} is {found!r}; expected {wanted!r}")


def _lower(value: Any) -> Any:
    """Returns the same value with all keys in lower case."""
    return {str(key).lower(): _lower(item) for key, item in value.items()} if isinstance(value, dict) else value
