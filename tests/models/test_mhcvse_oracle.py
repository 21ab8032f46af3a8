"""The whole model against the loops of `oracle`, in evaluation and in training, with its gradients."""

import functools
import pathlib
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from variants import variants

from mhcvse_jax import config, models
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import concept_graph, propagate_dense, propagate_sparse
from mhcvse_jax.layers.pooling import mean_pool
from mhcvse_jax.layers.self_attention import SelfAttention, attention_entropy
from mhcvse_jax.losses import Contrast, LossTerms, loss_terms
from mhcvse_jax.losses.weighting import loss_weights

BATCH, REGIONS, FEATURES, WORDS, VOCABULARY, CONCEPTS, CONCEPT_WIDTH = 5, 7, 17, 11, 23, 19, 3
LENGTHS = np.array([11, 2, 5, 1, 7], np.int32)
SIZES = {"embedding_dim": 26, "num_heads": 2, "word_dim": 5, "dropout_rate": 0.0}
CONSTANTS = {  # none at its default
    "graph_slope": 0.3,
    "consensus_temperature": 2.0,
    "label_temperature": 3.0,
    "label_share": 0.4,
    "fixed_instance_weight": 0.7,
}
# Between them every value of every choice.
CHOSEN = {
    "paper": {"fusion": "weight_sum", "attention_input": "scaled"},
    "cvse_pooling": {
        "fusion": "concat",
        "attention_input": "unit",
        "attention_residual": True,
        "pooling": "attention",
        "graph_product": "dense",
        "train_concept_vectors": True,
    },
    "layer_norms": {
        "fusion": "adap_sum",
        "attention_input": "layer_norm",
        "consensus_norm": "layer",
        "region_mlp_dim": 13,
    },
    "no_heads": {"fusion": "fixed_sum", "num_heads": 0, "pooling": "attention", "consensus_norm": "layer"},
}
SPREAD = 2.0  # of kernels, relative to what keeps variance: no branch idles in the linear part of its tanh
MARGIN = 0.7
BASE_WEIGHTS = LossTerms(fusion=3.0, instance=5.0, consensus=1.0, kl=2.0)


class Inputs(NamedTuple):
    regions: np.ndarray
    captions: Captions


class Computed(NamedTuple):
    model: models.MHCVSE
    variables: dict
    evaluated: tuple
    trained: tuple
    batch_stats: dict
    total: jax.Array
    losses: LossTerms
    gradients: dict
    again: functools.partial  # inputs -> the same with other inputs


RNG = np.random.default_rng(7)
INPUTS = Inputs(
    regions=RNG.normal(size=(BATCH, REGIONS, FEATURES)).astype(np.float32),
    captions=Captions(
        np.where(np.arange(WORDS) < LENGTHS[:, None], RNG.integers(4, VOCABULARY, (BATCH, WORDS)), 0).astype("i4"),
        LENGTHS,
        labels=RNG.random((BATCH, CONCEPTS)) < 0.2,
    ),
)
INPUTS.captions.labels[1] = False  # a caption without a concept
IMAGE_INDEX = np.array([4, 9, 4, 0, 2])  # pairs 0 and 2 are of one picture
VECTORS = RNG.normal(size=(CONCEPTS, CONCEPT_WIDTH)).astype(np.float32)
MATRIX = np.where(RNG.random((CONCEPTS, CONCEPTS)) < 0.3, RNG.random((CONCEPTS, CONCEPTS)), 0) + np.eye(CONCEPTS)


def the_graph():
    receivers, senders = np.nonzero(MATRIX)
    return concept_graph(VECTORS, senders, receivers, MATRIX[receivers, senders].astype(np.float32))


def build(dtype="float32", **changes):
    model_config = config.base().model
    model_config.update(SIZES | CONSTANTS | changes)
    return models.build(model_config, vocabulary_size=VOCABULARY, dtype=dtype)


def random_variables(model):
    """Every parameter and statistic random: no bias at 0, no scale at 1, no statistic at its start."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(lambda key: model.init(key, *INPUTS, the_graph(), train=False), jax.random.key(0))

    def fill(path, leaf):
        name = path[-1].key
        if name == "var":
            values = rng.uniform(0.5, 2, leaf.shape)
        elif name == "scale":
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif name in ("bias", "mean"):
            values = 0.3 * rng.normal(size=leaf.shape)
        else:
            values = SPREAD * rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[0])
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="module", params=variants(CHOSEN, first_python=("cvse_pooling", "no_heads")))
def computed(request):
    model = build(**CHOSEN[request.param])
    graph = the_graph()

    def compute(variables, inputs):
        def objective(params):
            (image, text), updated = model.apply(
                variables | {"params": params},
                *inputs,
                graph,
                train=True,
                rngs={"dropout": jax.random.key(1)},
                mutable=["batch_stats"],
            )
            losses, _ = loss_terms(image, text, IMAGE_INDEX, Contrast(MARGIN), mask_same_image=True, reduction="mean")
            weights = loss_weights(losses, BASE_WEIGHTS, "eq15")
            total = sum(jax.tree.leaves(jax.tree.map(jnp.multiply, losses, weights)))
            return total, ((image, text), updated.get("batch_stats", {}), losses)

        evaluated = model.apply(variables, *inputs, graph, train=False)
        (total, aside), gradients = jax.value_and_grad(objective, has_aux=True)(variables["params"])
        return evaluated, total, aside, gradients

    variables = random_variables(model)
    again = functools.partial(jax.jit(compute), variables)
    evaluated, total, (trained, batch_stats, losses), gradients = again(INPUTS)
    return Computed(model, variables, evaluated, trained, batch_stats, total, losses, gradients, again)


def float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def by_oracle(model, variables, train):
    named = SimpleNamespace(**{name: getattr(model, name) for name in model.__dataclass_fields__})
    matrix = MATRIX.astype(np.float32).astype(np.float64)
    return oracle.mhcvse(named, variables, float64(INPUTS.regions), *INPUTS.captions, float64(VECTORS), matrix, train)


def assert_close(found, expected, **tolerance):
    for name, value in found._asdict().items():
        if value is None:
            continue
        np.testing.assert_allclose(value, getattr(expected, name), err_msg=name, **tolerance)


def test_evaluation_equals_the_loops(computed):
    image, text, _ = by_oracle(computed.model, float64(computed.variables), train=False)
    assert_close(computed.evaluated[0], image, rtol=0, atol=1e-5)
    assert_close(computed.evaluated[1], text, rtol=0, atol=1e-5)


def test_training_equals_the_loops(computed):
    image, text, batch_stats = by_oracle(computed.model, float64(computed.variables), train=True)
    assert_close(computed.trained[0], image, rtol=0, atol=1e-5)
    assert_close(computed.trained[1], text, rtol=0, atol=1e-5)
    assert jax.tree.structure(computed.batch_stats) == jax.tree.structure(batch_stats)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), computed.batch_stats, batch_stats)
    losses = oracle.losses(image, text, IMAGE_INDEX, MARGIN, mask_same_image=True, hardest=True, reduction="mean")
    assert_close(computed.losses, SimpleNamespace(**losses), rtol=1e-4)
    total = sum(loss * oracle.term_weight(loss, getattr(BASE_WEIGHTS, name), "eq15") for name, loss in losses.items())
    np.testing.assert_allclose(computed.total, total, rtol=1e-4)


def has_no_gradient(model, path):
    """Biases that the next operation takes out again, so that no loss can depend on them."""
    owner, name = path.split("/", 1)
    if name in ("attention/key/bias", "score/bias"):
        return True  # one shift of all the logits of a softmax
    if owner.endswith("consensus"):
        return model.consensus_norm == "batch" and name in ("concept/bias", "instance/bias")  # batch norm: centred
    return path == "image_pooling/query/bias"  # likewise; words have no batch norm, and regions one by slot


def test_every_parameter_has_a_gradient(computed):
    leaves = jax.tree_util.tree_leaves_with_path(computed.gradients)
    sizes = {jax.tree_util.keystr(path, simple=True, separator="/"): np.abs(leaf).max() for path, leaf in leaves}
    assert len(sizes) > 30
    assert np.isfinite(list(sizes.values())).all()
    for path, size in sizes.items():
        if has_no_gradient(computed.model, path):
            assert size < 2e-5, path
        else:
            assert size > 1e-4, path
    in_batch = [np.any(computed.gradients["text_gru"]["embed"]["embedding"][i] != 0) for i in range(VOCABULARY)]
    used = {token for tokens, length in zip(INPUTS.captions.tokens, LENGTHS, strict=True) for token in tokens[:length]}
    assert set(np.flatnonzero(in_batch)) == used


def test_gradient_equals_finite_differences_of_the_loops(computed):
    rng = np.random.default_rng(5)
    variables = float64(computed.variables)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), variables["params"])
    weights = loss_weights(float64(computed.losses), BASE_WEIGHTS, "eq15")  # held: no gradient passes through them

    def objective(distance):
        params = jax.tree.map(lambda x, d: x + distance * d, variables["params"], direction)
        image, text, _ = by_oracle(computed.model, variables | {"params": params}, train=True)
        losses = oracle.losses(image, text, IMAGE_INDEX, MARGIN, mask_same_image=True, hardest=True, reduction="mean")
        return sum(float(getattr(weights, name)) * loss for name, loss in losses.items())

    step = 1e-6
    slope = (objective(step) - objective(-step)) / (2 * step)
    found = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(np.float64(g) * d), computed.gradients, direction)))
    assert abs(slope) > 0.1
    np.testing.assert_allclose(found, slope, rtol=1e-3)


def test_what_stands_at_padding_does_not_matter(computed):
    garbage = np.random.default_rng(1).integers(0, VOCABULARY, INPUTS.captions.tokens.shape).astype(np.int32)
    tokens = np.where(np.arange(WORDS) < LENGTHS[:, None], INPUTS.captions.tokens, garbage)
    assert (tokens != INPUTS.captions.tokens).sum() > 20
    evaluated, total, (trained, _, _), gradients = computed.again(
        INPUTS._replace(captions=INPUTS.captions._replace(tokens=tokens))
    )
    before = computed.evaluated, computed.trained, computed.total, computed.gradients
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
        (evaluated, trained, total, gradients),
        before,
    )


def test_more_padding_does_not_matter(computed):
    tokens = np.pad(INPUTS.captions.tokens, ((0, 0), (0, 8)), constant_values=22)
    encode = jax.jit(functools.partial(computed.model.apply, method="encode_texts"))
    text = encode(computed.variables, INPUTS.captions._replace(tokens=tokens), the_graph())
    assert_close(text, computed.evaluated[1], rtol=0, atol=1e-6)


def test_bfloat16_stays_near_and_keeps_float32_parameters():
    evaluate = {dtype: jax.jit(functools.partial(build(dtype).apply, train=False)) for dtype in ("float32", "bfloat16")}
    variables = random_variables(build("bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    exact, rounded = (evaluate[dtype](variables, *INPUTS, the_graph()) for dtype in evaluate)
    for side in (0, 1):
        assert {leaf.dtype for leaf in rounded[side]} == {jnp.dtype("float32")}
        assert_close(rounded[side], exact[side], rtol=0, atol=3e-2)
        assert not np.allclose(rounded[side].fused, exact[side].fused, rtol=0, atol=1e-4)  # it did round
        np.testing.assert_allclose(np.linalg.norm(rounded[side].fused, axis=1), 1, atol=1e-6)


def test_mean_pool_is_over_the_own_elements():
    elements = np.random.default_rng(4).normal(size=(BATCH, WORDS, 3))
    mask = np.arange(WORDS) < LENGTHS[:, None]
    np.testing.assert_allclose(mean_pool(elements, mask), oracle.mean_pool(elements, LENGTHS), atol=1e-6)
    np.testing.assert_allclose(mean_pool(elements, None), elements.mean(axis=1), atol=1e-6)


def test_sparse_and_dense_products_are_equal():
    rng = np.random.default_rng(2)
    senders, receivers = rng.integers(0, 13, (2, 53))  # some pairs twice, some nodes never
    arrays = rng.normal(size=(13, 5)).astype("f4"), rng.normal(size=53).astype("f4")
    cotangent = rng.normal(size=(13, 5)).astype("f4")

    def product(propagate, vectors, weights):
        received = propagate(concept_graph(vectors, senders, receivers, weights))
        return jnp.sum(received * cotangent), received

    results = [
        jax.value_and_grad(functools.partial(product, propagate), argnums=(0, 1), has_aux=True)(*arrays)
        for propagate in (propagate_sparse, propagate_dense)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results)
    matrix = np.zeros((13, 13))
    for sender, receiver, weight in zip(senders, receivers, arrays[1], strict=True):
        matrix[receiver, sender] += weight
    np.testing.assert_allclose(results[0][0][1], matrix @ arrays[0], atol=1e-5)


def test_number_of_parameters_of_the_paper():
    path = pathlib.Path(__file__).parents[2] / "configs" / "f30k_paper.py"
    model = models.build(config.read(str(path)).model, vocabulary_size=8000, dtype="float32")
    graph = concept_graph(np.zeros((300, 300), "f4"), np.zeros(1, "i4"), np.zeros(1, "i4"), np.zeros(1, "f4"))
    captions = Captions(np.ones((1, 16), "i4"), np.ones(1, "i4"), np.zeros((1, 300), bool))
    inputs = Inputs(np.zeros((1, 36, 2048), "f4"), captions)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, graph, train=False))
    found = {part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in shapes["params"].items()}
    dim = 1024
    gates_of_input, gates_of_state = 3 * (300 * dim + dim), 3 * dim * dim + dim  # of the state only `hn` has a bias
    attention = 4 * (dim * dim + dim)  # Q, K, V and the output
    consensus = 2 * (dim * dim + dim) + 2 * 2 * dim + dim  # two Linear, two batch norms, w
    fusion = 2 * dim * 2 * dim + 2 * dim
    expected = {
        "region_projection": 2048 * dim + dim,
        "text_gru": 8000 * 300 + 2 * (gates_of_input + gates_of_state),
        "concept_gcn": 300 * 512 + 512 * dim,
        "image_attention": attention,
        "text_attention": attention,
        "image_consensus": consensus,
        "text_consensus": consensus,
        "image_fusion": fusion,
        "text_fusion": fusion,
    }
    assert found == expected
    assert sum(found.values()) == 34_317_056
    statistics = sum(leaf.size for leaf in jax.tree.leaves(shapes["batch_stats"]))
    assert statistics == 2 * 2 * 2 * dim  # mean and variance of two batch norms a modality


def attend(elements, mask=None, *, heads=2, form="unit", change=lambda params: params):
    """Returns the entropy and the weights of a SelfAttention, its parameters changed."""
    layer = SelfAttention(heads, form, residual=False, dropout_rate=0.0, dtype=jnp.float32)

    def weigh(params):
        _, updated = layer.apply({"params": params}, elements, mask, train=False, mutable=["intermediates"])
        entropies = attention_entropy({"image_attention": updated["intermediates"]})
        return entropies["image_attention"], updated["intermediates"]["attention"]["attention_weights"][0]

    key = jax.random.key(0)
    params = jax.jit(lambda: layer.init(key, elements, mask, train=False)["params"])()
    params = change(jax.tree.map(np.array, params))
    value, weights = jax.jit(weigh)(params)
    return float(value), np.asarray(weights), params


def unit_vectors(*shape):
    vectors = np.random.default_rng(11).normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


MASK = np.arange(7) < np.array([[7], [2], [3]])


def test_entropy_is_1_where_attention_is_uniform():
    def no_query(params):
        params["attention"]["query"]["kernel"][:] = 0
        return params

    elements = unit_vectors(3, 7, 26)
    assert attend(elements, change=no_query)[0] == pytest.approx(1, abs=1e-6)
    assert attend(elements, MASK, change=no_query)[0] == pytest.approx(1, abs=1e-6)


def test_entropy_is_near_0_where_each_element_sees_only_itself():
    def same_query_and_key(params):
        kernel = np.stack([np.eye(26, 13), np.eye(26, 13)], axis=1)
        params["attention"]["query"]["kernel"] = params["attention"]["key"]["kernel"] = 12 * kernel
        return params

    elements = np.broadcast_to(np.eye(7, 26, dtype=np.float32), (3, 7, 26))
    value, weights, _ = attend(elements, MASK, change=same_query_and_key)
    assert 0 < value < 1e-3
    np.testing.assert_allclose(weights[0, 1], np.eye(7), atol=1e-3)


def test_entropy_is_of_the_own_elements_alone():
    elements = unit_vectors(3, 7, 26)
    value, _, params = attend(elements, MASK, form="scaled")
    counts = MASK.sum(axis=1)
    scaled = np.float64(elements) * np.sqrt(26)
    expected = oracle.entropy(oracle.attention(float64(params["attention"]), scaled, counts)[1], counts)
    assert value == pytest.approx(expected, abs=1e-5)
    assert 0 < value < 0.99
    garbage = np.where(MASK[..., None], elements, 3 * elements[::-1])
    assert attend(garbage, MASK, form="scaled")[0] == pytest.approx(value, abs=1e-6)


def test_why_the_input_is_scaled():
    """A unit vector of 1024 features gives attention logits so small that every head attends uniformly."""
    elements = unit_vectors(1, 36, 1024)
    spread = {}
    for form in ("unit", "scaled"):
        value, weights, _ = attend(elements, heads=8, form=form)
        logits = np.log(weights)  # up to a constant for each query
        spread[form] = value, np.std(logits - logits.mean(axis=-1, keepdims=True))
    assert spread["unit"][1] == pytest.approx(0.001, rel=0.3)
    assert spread["unit"][0] > 1 - 1e-6
    assert spread["scaled"][1] == pytest.approx(1, rel=0.3)
    assert spread["scaled"][0] < 0.9


def test_entropy_counts_elements_that_nothing_attends_to():
    weights = np.zeros((1, 2, 7, 7), np.float32)
    weights[..., :2] = 0.5
    sown = {"attention": {"attention_weights": (weights,)}}
    found = attention_entropy({"image_attention": sown})["image_attention"]
    assert found == pytest.approx(np.log(2) / np.log(7), abs=1e-6)
