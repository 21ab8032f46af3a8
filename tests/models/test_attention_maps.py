"""Where each model says that it looks, against loops, with padding on both sides."""

import functools

import jax
import numpy as np
import oracle
import pair_oracle
import pytest

from mhcvse_jax import config, models
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.training.step import init_variables

BATCH, REGIONS, FEATURES, WORDS, VOCABULARY, DIM, HEADS = 3, 7, 11, 5, 23, 26, 2
NUM_REGIONS, LENGTHS = np.array([7, 1, 4], np.int32), np.array([2, 5, 1], np.int32)
MODELS = {
    "mhcvse": {"attention_input": "scaled", "attention_residual": True},
    "mhcvse_layer_norm": {"attention_input": "layer_norm", "attention_residual": False, "pooling": "attention"},
    "cvse": {"name": "cvse", "num_heads": 0, "pooling": "attention"},
    "vsepp": {"name": "vsepp", "num_heads": 0},
    "scan_t2i": {"name": "scan", "num_heads": 0},
    "scan_i2t": {"name": "scan", "num_heads": 0, "scan_direction": "i2t"},
    "cross_attention": {"name": "cross_attention", "cross_temperature": 3.0},
}
RNG = np.random.default_rng(0)
REGION_FEATURES = RNG.normal(size=(BATCH, REGIONS, FEATURES)).astype(np.float32)
TOKENS = RNG.integers(1, VOCABULARY, (BATCH, WORDS)).astype(np.int32)  # also at padding
GRAPH = concept_graph(np.ones((3, 2), np.float32), np.arange(3), np.arange(3), np.ones(3, np.float32))


@pytest.fixture(scope="module", params=MODELS)
def looked(request):
    """Returns the model, its parameters as float64, and its maps."""
    values = config.base().model
    values.update(
        {"embedding_dim": DIM, "num_heads": HEADS, "word_dim": 5, "dropout_rate": 0.0} | MODELS[request.param]
    )
    model = models.build(values, vocabulary_size=VOCABULARY, dtype="float32")
    start = functools.partial(init_variables, model, GRAPH, (REGIONS, FEATURES))
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        values = 0.5 * rng.normal(size=leaf.shape).astype(np.float32)
        return np.abs(values) + 0.5 if path[-1].key in ("var", "scale") else values

    variables = jax.tree_util.tree_map_with_path(fill, jax.eval_shape(start, jax.random.key(0)))

    @jax.jit
    def maps(variables):
        inputs = (REGION_FEATURES, TOKENS, LENGTHS)
        return model.apply(variables, *inputs, num_regions=NUM_REGIONS, method="attention_maps")

    return model, jax.tree.map(np.float64, variables), maps(variables)


def fragments(params):
    """Returns each picture's unit regions and each caption's unit words, without padding."""
    projected = oracle.dense(params["region_projection"], REGION_FEATURES)
    words = oracle.text_gru(params["text_gru"], TOKENS, LENGTHS)
    images = [
        np.array([oracle.l2norm(region) for region in picture[:number]])
        for picture, number in zip(projected, NUM_REGIONS, strict=True)
    ]
    return {"image": images, "text": [caption[:length] for caption, length in zip(words, LENGTHS, strict=True)]}


def pooling_weights(params, running, elements):
    query = elements.mean(axis=0)
    query = query if running else oracle.l2norm(query)
    own, mean = oracle.dense(params["element"], elements), oracle.dense(params["query"], query)
    if running:
        of_slots, running_slots = (
            {name: values[: len(elements)] for name, values in tree["element_norm"].items()}
            for tree in (params, running)
        )
        (own,), _ = oracle.batch_norm(of_slots, running_slots, own[None], 1, False)
        (mean,), _ = oracle.batch_norm(params["query_norm"], running["query_norm"], mean[None], 1, False)
    return oracle.softmax(oracle.dense(params["score"], np.tanh(own) * np.tanh(mean))[:, 0])


def expected(model, variables):
    """Returns by map a list of the pairs' [heads, rows, columns], and by side the pairs' vectors, without padding."""
    params, running = variables["params"], variables.get("batch_stats", {})
    sides, found, before = fragments(params), {}, {"image": [], "text": []}
    if isinstance(model, models.SCAN):
        own, other = ("text", "image") if model.scan_direction == "t2i" else ("image", "text")
        temperature = model.scan_attention_temperature
        pairs = zip(sides[own], sides[other], strict=True)
        found[f"{own}_to_{other}"] = [pair_oracle.scan_weights(*pair, temperature)[None] for pair in pairs]
    elif isinstance(model, models.CrossAttention):
        pairs = zip(sides["image"], sides["text"], strict=True)
        attention = [pair_oracle.cross_attention(params, *pair, model.cross_levels)[1] for pair in pairs]
        found["text_to_image"] = [both["text"] for both in attention]
        found["image_to_text"] = [both["image"] for both in attention]
    else:
        for side, elements in sides.items():
            if getattr(model, "num_heads", 0):
                name = f"{side}_attention"
                found[side], sides[side] = [], []
                for x in elements:
                    form = (model.attention_input, model.attention_residual)
                    scaled = oracle.layer_norm(params[name]["norm"], x) if form[0] == "layer_norm" else x * DIM**0.5
                    weights = oracle.attention(params[name]["attention"], scaled[None], [len(x)])[1][0]
                    found[side].append(weights)
                    sides[side].append(oracle.self_attention(params[name], x[None], [len(x)], *form)[0])
                    before[side].append(scaled)
            if model.pooling == "attention":
                name = f"{side}_pooling"
                weights = [pooling_weights(params[name], running.get(name), x) for x in sides[side]]
                found[name] = [shares[None, None] for shares in weights]
    if getattr(model, "attention_residual", False):
        sides = before
    vectors = {side: [np.array([oracle.l2norm(v) for v in x]) for x in elements] for side, elements in sides.items()}
    return found, vectors


def test_maps_and_vectors_equal_the_loops(looked):
    model, variables, maps = looked
    found, vectors = expected(model, variables)
    assert {name for name, value in maps._asdict().items() if value is not None} == {"regions", "words", *found}
    for name, pairs in found.items():
        whole = np.asarray(getattr(maps, name))
        for pair, weights in zip(whole, pairs, strict=True):
            heads, rows, columns = weights.shape
            np.testing.assert_allclose(pair[:, :rows, :columns], weights, atol=1e-5)
            assert pair[:, rows:].sum() == pair[:, :, columns:].sum() == 0
            assert np.ptp(pair.sum(axis=2)[:, :rows]) < 1e-5
            assert len(pair) == heads
        assert np.std(whole[whole > 0]) > 0.01
    for side, whole in (("image", maps.regions), ("text", maps.words)):
        for pair, own in zip(np.asarray(whole), vectors[side], strict=True):
            np.testing.assert_allclose(pair[: len(own)], own, atol=1e-5)
            assert not pair[len(own) :].any()


def test_every_model_says_where_it_looks():
    assert {values.get("name", "mhcvse") for values in MODELS.values()} == set(models.MODELS)
