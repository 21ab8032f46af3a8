"""What an NVIDIA GPU would be given, lowered on a machine that has none: eight devices, every model, both dtypes."""

import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax._src.cudnn import fused_attention_stablehlo

from benchmarks.memory import Data, batch_shapes, make_parts, split_shapes, state_shapes
from mhcvse_jax import config as config_lib
from mhcvse_jax.backbones import efficientnet_lite2
from mhcvse_jax.detection.faster_rcnn import Architecture, FasterRCNN
from mhcvse_jax.detection.proposals import Search
from mhcvse_jax.detection.selection import FIXED_36
from mhcvse_jax.devices.mesh import make_mesh, replicated
from mhcvse_jax.devices.platform import lowered_for
from mhcvse_jax.layers.text_gru import choose_gru
from mhcvse_jax.retrieval.encode import Encoder
from mhcvse_jax.retrieval.pairs import PairBlocks, PairScorer
from mhcvse_jax.training.step import make_resident_steps, make_train_step

DATA = Data(images=104, regions=5, features=23, vocabulary=43, edges=29)
WORDS = 7
SIZES = {
    "batch_size": 16,
    "model.embedding_dim": 32,
    "model.word_dim": 6,
    "concepts.num": 11,
    "concepts.vector_dim": 3,
    "text.word_vectors_path": "",
}
CONFIGS = {
    "f30k": {"model.num_heads": 2},
    "cvse_f30k": {},
    "vsepp_f30k": {},
    "scan_f30k": {},
    "cross_attention_f30k": {"model.num_heads": 2},
}
PAIR_MODELS = ("scan_f30k", "cross_attention_f30k")
PARTITIONING = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}
CUDNN = {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"}
SLOW = [pytest.param(name, marks=() if name == "vsepp_f30k" else pytest.mark.slow) for name in CONFIGS]
of_all_models = pytest.mark.parametrize("name", SLOW)
SHORT = {"float32": "f32", "bfloat16": "bf16"}
in_both = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


def read(name, dtype, **more):
    values = SIZES | CONFIGS[name] | {"compute_dtype": dtype} | more
    return config_lib.read(name, [f"--config.{key}={value}" for key, value in values.items()])


@functools.cache
def prepared(name, dtype):
    return prepare(read(name, dtype), DATA, make_mesh())


def prepare(config, data, mesh):
    with lowered_for("gpu"):
        parts = make_parts(config, data, mesh)
        return config, parts, state_shapes(parts, data)


def lowered(function, *arguments):
    """The StableHLO of a jitted function, for CUDA."""
    allowed = [export.DisabledSafetyCheck.custom_call(name) for name in CUDNN]
    with lowered_for("gpu"):
        return export.export(function, platforms=["cuda"], disabled_checks=allowed)(*arguments).mlir_module()


def custom_calls(text):
    return set(re.findall(r"custom_call @([\w$.]+)", text)) - PARTITIONING


def check(text, custom=frozenset()):
    """No double precision; no way back to the host, nor anything else from outside of XLA but what is named."""
    assert "f64" not in text
    assert custom_calls(text) == set(custom)


def dtypes_of(operation, text):
    """How many of these operations take their first factor in each dtype."""
    return Counter(re.findall(rf"stablehlo\.{operation}\b.*?: \(tensor<(?:\d+x)*(\w+)>", text))


def of_features(text, shape):
    """The operations that take the whole array of features in, whatever the order of its axes."""
    shapes = "|".join("x".join(map(str, order)) for order in {shape, shape[::-1], (shape[1], shape[0], shape[2])})
    lines = [line for line in text.splitlines() if re.search(rf": \(.*tensor<(?:{shapes})x\w+>.*\) ->", line)]
    return Counter(re.search(r"(?:stablehlo|sdy)\.(\w+)|call @\w+", line)[0] for line in lines)


@in_both
@of_all_models
def test_a_training_step(name, dtype):
    config, parts, state = prepared(name, dtype)
    text = lowered(make_train_step(parts), state, batch_shapes(config, DATA, parts.mesh, WORDS))
    check(text)
    assert text.count("stablehlo.while") == 2  # the GRU of accelerators: both directions in one loop, and back
    products = dtypes_of("dot_general", text)
    assert products.pop(SHORT[dtype]) > 0.4 * products.total()
    if dtype == "bfloat16":
        assert set(products) == {"f32"}  # the losses, the concepts, what is summed from products of bfloat16


@pytest.mark.parametrize(("placement", "dtype"), [("replicated", "bfloat16"), ("sharded", "float32")])
@of_all_models
def test_steps_on_features_that_lie_on_the_devices(name, placement, dtype):
    """They are gathered from as they lie: never transposed, converted or handed around whole."""
    config, parts, state = prepared(name, dtype)
    split = split_shapes(config, DATA, parts.mesh, sharded=placement == "sharded")
    everywhere = replicated(parts.mesh)
    sent = [jax.ShapeDtypeStruct(shape, jnp.int32, sharding=everywhere) for shape in ((3, config.batch_size), (3,), ())]
    text = lowered(make_resident_steps(parts, placement=placement, caption_lengths=(WORDS,)), state, split, *sent)
    check(text)
    images = DATA.images // (parts.mesh.size if placement == "sharded" else 1)
    assert of_features(text, (images, DATA.regions, DATA.features)) == {"stablehlo.gather": 1}
    assert ("stablehlo.reduce_scatter" in text) == (placement == "sharded")


@pytest.mark.slow
def test_collectives_of_eight_devices():
    """XLA's partitioner, the same for CPU and GPU, exchanges embeddings, gradients and a batch's features, no more."""
    config, parts, state = prepared("vsepp_f30k", "float32")
    split = split_shapes(config, DATA, parts.mesh, sharded=True)
    sent = [
        jax.ShapeDtypeStruct(shape, jnp.int32, sharding=replicated(parts.mesh))
        for shape in ((3, config.batch_size), (3,), ())
    ]
    with lowered_for("gpu"):
        steps = make_resident_steps(parts, placement="sharded", caption_lengths=(WORDS,))
        text = steps.lower(state, split, *sent).compile().as_text()
    kinds = r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    found = re.findall(rf"= (.*?) {kinds}(?:-start)?\(", text)
    batch_features = f"f32[{config.batch_size // parts.mesh.size},{DATA.regions},{DATA.features}]"
    assert any(kind == "reduce-scatter" and batch_features in shapes for shapes, kind in found)
    assert any(kind == "all-reduce" for _, kind in found)  # of gradients
    gathered = [shapes for shapes, kind in found if kind == "all-gather"]
    assert gathered
    assert not any(f",{DATA.features}]" in shapes for shapes in gathered)  # no features


def options():
    return {"caption_lengths": (WORDS,), "threads": 1, "prefetch": 1, "precision": None}


def without_shardings(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def variables_of(state):
    return {"params": state.params, "batch_stats": state.batch_stats}


@in_both
@of_all_models
def test_encoders(name, dtype):
    config, parts, state = prepared(name, dtype)
    batch, variables = batch_shapes(config, DATA, parts.mesh, WORDS), variables_of(state)
    if name in PAIR_MODELS:
        scorer = PairScorer(parts.model, parts.graph, parts.mesh, blocks=PairBlocks(16, 16, 64), **options())
        images, texts = scorer._encode_images, scorer._encode_texts
    else:
        encoder = Encoder(parts.model, parts.graph, parts.mesh, batch_size=16, **options())
        images, texts = encoder._images, encoder._texts
    of_images, of_texts = lowered(images, variables, batch.regions, None), lowered(texts, variables, batch.captions)
    for text, loops in ((of_images, 0), (of_texts, 1)):
        check(text)
        assert text.count("stablehlo.while") == loops
        assert dtypes_of("dot_general", text)[SHORT[dtype]] > 0


@in_both
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in PAIR_MODELS])
def test_pair_scorers(name, dtype):
    """A GPU has all pairs of a block at once: the loop over one side is a CPU's."""
    config, parts, state = prepared(name, dtype)
    batch, variables = batch_shapes(config, DATA, parts.mesh, WORDS), variables_of(state)
    scorer = PairScorer(parts.model, parts.graph, parts.mesh, blocks=PairBlocks(16, 16, 64), **options())
    with lowered_for("gpu"):
        image = without_shardings(jax.eval_shape(scorer._encode_images, variables, batch.regions, None))
        text = without_shardings(jax.eval_shape(scorer._encode_texts, variables, batch.captions))
    index = jax.ShapeDtypeStruct((24,), jnp.int32)
    for found in (
        lowered(scorer._matrix, variables, image, text),
        lowered(scorer._pairs, variables, image, text, index, index),
    ):
        check(found)
        assert "stablehlo.while" not in found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "odd", "expected"), [("bfloat16", 0, CUDNN), ("bfloat16", 1, set()), ("float32", 0, set())]
)
def test_attention_by_cudnn(dtype, odd, expected, monkeypatch):
    """Pooled by attention every element's output is needed: cuDNN makes it, forward and backward, where it can.

    On one device: over several, how it is split is decided in Python, which an exported program cannot hold.
    """
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)  # there is none here
    data = DATA._replace(regions=6 + odd)
    config = read("f30k", dtype, **{"model.pooling": "attention"})
    config, parts, state = prepare(config, data, make_mesh(jax.devices()[:1]))
    check(lowered(make_train_step(parts), state, batch_shapes(config, data, parts.mesh, 8 + odd)), expected)


@in_both
def test_faster_rcnn(dtype):
    model = FasterRCNN(Architecture((1, 1, 1, 1), 8, 24, 37, 11), FIXED_36, Search(), dtype=jnp.dtype(dtype))
    canvas = jax.ShapeDtypeStruct((160, 128, 3), jnp.float32)
    size, scale = jax.ShapeDtypeStruct((2,), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), canvas, size, scale)
    text = lowered(jax.jit(model.apply), variables, canvas, size, scale)
    check(text)
    convolutions = dtypes_of("convolution", text)
    assert convolutions == ({"f32": 20} if dtype == "float32" else {"bf16": 18, "f32": 2})  # scores, boxes of proposals


@pytest.mark.slow
def test_efficientnet():
    model = efficientnet_lite2.EfficientNetLite2Features()
    pictures = jax.ShapeDtypeStruct((8, 224, 224, 3), jnp.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), pictures)
    check(lowered(efficientnet_lite2.means_of, variables, jax.ShapeDtypeStruct((36, 49), jnp.float32), pictures))


def test_only_what_is_lowered_for_a_gpu_takes_its_ways(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert choose_gru("auto") == "packed"
    with lowered_for("gpu"):
        assert choose_gru("auto") == "scan"
    assert choose_gru("auto") == "packed"
