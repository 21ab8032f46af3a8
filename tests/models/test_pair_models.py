"""VSE++ with each pooling, SCAN and the cross attention: sizes, scores against loops, gradients, padding, mining."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pair_oracle
import pytest
from parameters import random_variables
from variants import variants

from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.layers.cross_attention import Projections, attend
from mhcvse_jax.layers.gpo import positional_encoding
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.losses import Contrast, loss_terms
from mhcvse_jax.losses.pairs import matching_loss, pair_contrast, pair_loss_terms
from mhcvse_jax.models.cross_attention import drawn_likeness
from mhcvse_jax.models.pair_scores import Candidates, PairScores, of_matrix
from mhcvse_jax.training.step import init_variables

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
BATCH, REGIONS, FEATURES, WORDS, VOCABULARY = 5, 7, 17, 11, 23
LENGTHS = np.array([11, 2, 5, 1, 7], np.int32)
SIZES = {"embedding_dim": 26, "word_dim": 5, "dropout_rate": 0.0, "gpo_dim": 6}
CHOSEN = {
    "vsepp": {"name": "vsepp", "num_heads": 0},
    "vsepp_gpo": {"name": "vsepp", "num_heads": 0, "pooling": "gpo", "gpo_temperature": 0.3},
    "t2i_avg": {"name": "scan", "num_heads": 0, "scan_attention_temperature": 5.0},
    "t2i_lse": {"name": "scan", "num_heads": 0, "scan_pooling": "lse", "scan_lse_temperature": 3.0},
    "i2t_avg": {"name": "scan", "num_heads": 0, "scan_direction": "i2t", "scan_attention_temperature": 4.0},
    "i2t_lse": {"name": "scan", "num_heads": 0, "scan_direction": "i2t", "scan_pooling": "lse"},
    "cross": {"name": "cross_attention", "num_heads": 2, "cross_temperature": 3.0, "mined_negatives": 0},
    "cross_one_layer": {"name": "cross_attention", "num_heads": 13, "cross_layers": 1, "cross_levels": ("context",)},
}
RNG = np.random.default_rng(7)
INPUTS = (
    RNG.normal(size=(BATCH, REGIONS, FEATURES)).astype(np.float32),
    Captions(
        np.where(np.arange(WORDS) < LENGTHS[:, None], RNG.integers(4, VOCABULARY, (BATCH, WORDS)), 0).astype(np.int32),
        LENGTHS,
        RNG.random((BATCH, 3)) < 0.5,
    ),
)
GRAPH = concept_graph(np.ones((3, 2), np.float32), np.arange(3), np.arange(3), np.ones(3, np.float32))
IMAGE_INDEX = np.array([4, 9, 4, 0, 2])  # pairs 0 and 2 are of one picture
IS_NEGATIVE = IMAGE_INDEX[:, None] != IMAGE_INDEX


def build(**changes):
    values = config_lib.base().model
    values.update(SIZES | changes)
    return models.build(values, vocabulary_size=VOCABULARY, dtype="float32")


def compiled(function):
    return jax.jit(function)


def similarity(model, variables, inputs=INPUTS):
    """Returns [images, texts] as retrieval finds them: each side encoded, then compared."""

    def compare(variables, regions, captions):
        images = model.apply(variables, regions, GRAPH, method="encode_images")
        texts = model.apply(variables, captions, GRAPH, method="encode_texts")
        if isinstance(model, models.PairModel):
            return model.apply(variables, images, texts, method="score_matrix")
        return images.fused @ texts.fused.T

    return np.asarray(compiled(compare)(variables, *inputs))


def scores_of(model, variables, mining_temperature=0.0):
    def scores(variables, mining_temperature):
        return model.apply(variables, *INPUTS, GRAPH, IS_NEGATIVE, mining_temperature, train=False)

    return compiled(scores)(variables, mining_temperature)


def expected_similarity(model, variables):
    params = jax.tree.map(np.float64, variables["params"])
    projected = oracle.dense(params["region_projection"], INPUTS[0])
    pictures = [np.array([oracle.l2norm(region) for region in picture]) for picture in projected]
    words = oracle.text_gru(params["text_gru"], INPUTS[1].tokens, LENGTHS)
    captions = [caption[:length] for caption, length in zip(words, LENGTHS, strict=True)]

    def score(picture, caption):
        if isinstance(model, models.SCAN):
            how = (model.scan_direction, model.scan_pooling, model.scan_attention_temperature)
            return pair_oracle.scan(picture, caption, *how, model.scan_lse_temperature)
        if isinstance(model, models.CrossAttention):
            return pair_oracle.cross_attention(params, picture, caption, model.cross_levels)[0]
        return pooled(params, "image", picture) @ pooled(params, "text", caption)

    def pooled(params, side, elements):
        if model.pooling == "mean":
            return oracle.l2norm(elements.mean(axis=0))
        return pair_oracle.generalized_pooling(params[f"{side}_pooling"], elements, model.gpo_temperature)

    return np.array([[score(picture, caption) for caption in captions] for picture in pictures])


@pytest.mark.parametrize("name", CHOSEN)
def test_scores_equal_the_loops_whatever_the_padding(name):
    model = build(**CHOSEN[name])
    variables = random_variables(model, GRAPH, INPUTS[0].shape[1:])
    found = similarity(model, variables)
    np.testing.assert_allclose(found, expected_similarity(model, variables), atol=2e-6)
    assert np.std(found) > 0.01
    garbage = np.random.default_rng(1).integers(0, VOCABULARY, (BATCH, WORDS + 6)).astype(np.int32)
    garbage[:, :WORDS] = np.where(np.arange(WORDS) < LENGTHS[:, None], INPUTS[1].tokens, garbage[:, :WORDS])
    padded = (INPUTS[0], INPUTS[1]._replace(tokens=garbage))
    np.testing.assert_allclose(similarity(model, variables, padded), found, atol=2e-6)


@functools.cache
def in_training(name):
    """A model and its compiled gradient: (parameters, margin) -> that of the sum of all terms of the batch."""
    mined = 0 if name == "cross_one_layer" else 2
    model = build(**CHOSEN[name] | {"mined_negatives": mined})

    def total(params, margin):
        outputs = model.apply({"params": params}, *INPUTS, GRAPH, IS_NEGATIVE, jnp.inf, train=True)
        contrast, options = Contrast(margin, hardest=False), {"mask_same_image": True, "reduction": "mean"}
        if isinstance(outputs, PairScores):
            terms, _ = pair_loss_terms(outputs, IMAGE_INDEX, contrast, **options)
        else:
            terms, _ = loss_terms(*outputs, IMAGE_INDEX, contrast, **options)
        return sum(terms.present().values())

    return model, compiled(jax.grad(total))


@pytest.mark.parametrize("name", variants(["vsepp_gpo", "t2i_avg", "cross"], first_python=("vsepp_gpo", "cross")))
def test_a_batch_is_learnt(name):
    """From the start that training has: each picture's caption comes to lead all those of other pictures."""
    model, gradient = in_training(name)
    init = functools.partial(init_variables, model, GRAPH, INPUTS[0].shape[1:])
    start = params = compiled(init)(jax.random.key(0))["params"]
    optimizer = optax.adam(0.01)
    update, moments = compiled(optimizer.update), optimizer.init(params)
    for _ in range(60):
        updates, moments = update(gradient(params, 0.2), moments)
        params = jax.tree.map(np.add, params, updates)
    learnt = similarity(model, {"params": params})
    lead = np.where(IS_NEGATIVE, np.diagonal(learnt)[:, None] - learnt, np.inf)
    assert lead.min() > 0.1
    before = similarity(model, {"params": start})
    assert np.where(IS_NEGATIVE, np.diagonal(before)[:, None] - before, np.inf).min() < 0


@pytest.mark.parametrize("name", CHOSEN)
def test_gradients_are_finite_and_reach_every_parameter(name):
    model, gradient = in_training(name)
    one_level = len(CHOSEN[name].get("cross_levels", ())) == 1  # whose share is 1, whatever the gate
    gradients = gradient(random_variables(model, GRAPH, INPUTS[0].shape[1:])["params"], 0.7)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        is_gate = path[0].key in ("level_kernel", "level_bias")
        assert (np.abs(gradient).max() > 1e-9) != (one_level and is_gate), path


@pytest.mark.parametrize(
    ("config", "overrides", "expected", "total"),
    [
        ("vsepp_f30k", (), {}, 12_641_024),
        ("vsepp_f30k", ("model.pooling=gpo",), {"image_pooling": 12_576, "text_pooling": 12_576}, 12_666_176),
        ("scan_f30k", (), {}, 12_641_024),
        (
            "cross_attention_f30k",
            (),
            {
                **{f"{side}_layers_{i}": 3 * (1024 * 1024 + 1024) for side in ("image", "text") for i in (0, 1)},
                **{f"{side}_share": 1024 for side in ("image", "text")},
                **{f"{side}_gates": 3 * 1024 for side in ("image", "text")},
                **{f"{side}_log_temperature": 2 * 8 for side in ("image", "text")},
                "level_kernel": 9,
                "level_bias": 3,
                "matching_scale": 1,
                "matching_bias": 1,
            },
            25_244_462,
        ),
    ],
)
def test_number_of_parameters(config, overrides, expected, total):
    values = config_lib.read(str(CONFIGS / f"{config}.py"), [f"--config.{override}" for override in overrides])
    model = models.build(values.model, vocabulary_size=8000, dtype="float32")
    shapes = jax.eval_shape(lambda key: init_variables(model, GRAPH, (36, 2048), key), jax.random.key(0))
    found = {part: sum(x.size for x in jax.tree.leaves(tree)) for part, tree in shapes["params"].items()}
    dim = 1024
    gates_of_input, gates_of_state = 3 * (300 * dim + dim), 3 * dim * dim + dim
    shared = {
        "region_projection": 2048 * dim + dim,
        "text_gru": 8000 * 300 + 2 * (gates_of_input + gates_of_state),
    }
    assert found == shared | expected
    assert sum(found.values()) == total


def test_one_layer_has_no_gates_between_layers():
    """A checkpoint cannot hold empty arrays."""
    params = random_variables(build(**CHOSEN["cross_one_layer"]), GRAPH, INPUTS[0].shape[1:])["params"]
    assert "image_gates" not in params
    assert all(x.size for x in jax.tree.leaves(params))


def test_before_training_a_fragment_attends_to_the_other_side_s_copy_of_it():
    x = l2_normalize(jax.random.normal(jax.random.key(0), (1, 6, 32)))
    layer = Projections(num_heads=4, dtype=jnp.dtype("float32"))
    own, other = (
        layer.apply(layer.init(jax.random.key(seed), x), fragments) for seed, fragments in ((1, x), (2, x[:, ::-1]))
    )
    context = jax.tree.map(lambda part: part[0], other)
    gathered, _ = attend(own.queries[0], context, jnp.ones(6, bool), jnp.full(4, 200.0))
    np.testing.assert_allclose(gathered.reshape(6, 32), x[0], atol=1e-3)


def test_positional_encoding_begins_with_sine_and_cosine():
    encoding = positional_encoding(3, 4)
    expected = [[0, 1, 0, 1], [np.sin(1), np.cos(1), np.sin(0.01), np.cos(0.01)]]
    np.testing.assert_allclose(encoding[:2], expected, atol=1e-7)


@pytest.mark.parametrize("hardest", [True, False])
def test_the_loss_of_all_pairs_is_the_contrastive_loss(hardest):
    scores = np.random.default_rng(0).uniform(-1, 1, (BATCH, BATCH)).astype(np.float32)
    contrast = Contrast(0.3, hardest)
    found = pair_contrast(*of_matrix(jnp.asarray(scores), jnp.asarray(IS_NEGATIVE)), contrast)
    expected = oracle.hinge(np.float64(scores), IMAGE_INDEX, 0.3, True, hardest)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_matching_loss_counts_the_hardest_negative_that_is_one():
    logits = Candidates(jnp.array([2.0, -1.0]), jnp.array([[3.0, 1.0], [0.5, 9.0]]), jnp.array([[-2.0], [4.0]]))
    is_text, is_image = np.array([[False, True], [False, False]]), np.array([[True], [True]])
    found = matching_loss(logits, is_text, is_image)
    log = lambda x: np.log1p(np.exp(x))  # noqa: E731
    expected = [log(-2.0) + (log(1.0) + log(-2.0)) / 2, log(1.0) + log(4.0) / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_mined_negatives_are_the_most_alike_by_the_global_level():
    """Each mined score stands in the matrix at a pair that is a negative, and no other is more alike as a whole."""
    options = CHOSEN["cross"] | {"mined_negatives": 2}
    model = build(**options)
    variables = random_variables(model, GRAPH, INPUTS[0].shape[1:])
    outputs, everything = (scores_of(chosen, variables) for chosen in (model, model.clone(mined_negatives=0)))
    matrix, whole = np.asarray(everything.scores.texts), np.asarray(everything.whole)
    np.testing.assert_allclose(outputs.whole, whole, atol=1e-6)
    np.testing.assert_allclose(outputs.scores.positive, np.diagonal(matrix), atol=1e-6)
    for found, is_found, scores, alike in (
        (outputs.scores.texts, outputs.is_text, matrix, whole),
        (outputs.scores.images, outputs.is_image, matrix.T, whole.T),
    ):
        assert np.asarray(is_found).all()
        for i in range(BATCH):
            others = sorted(np.flatnonzero(IS_NEGATIVE[i]), key=lambda j: -alike[i, j])
            np.testing.assert_allclose(found[i], scores[i, others[:2]], atol=1e-6)


@pytest.mark.parametrize("mined", variants([0, 2], first_python=(2,)))
def test_fragment_and_context_have_a_hinge_of_their_own(mined):
    """In the score the global level could rank for all of them."""
    model = build(**CHOSEN["cross"] | {"mined_negatives": mined})
    variables = random_variables(model, GRAPH, INPUTS[0].shape[1:])
    outputs = scores_of(model, variables)
    assert len(outputs.alone) == 2
    for name, alone in zip(("fragment", "context"), outputs.alone, strict=True):
        expected = scores_of(model.clone(cross_levels=(name,)), one_level(variables)).scores
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone, expected)
    contrast = Contrast(0.3)
    found = pair_loss_terms(outputs, IMAGE_INDEX, contrast, mask_same_image=True, reduction="sum")[0].fusion
    hinges = [
        np.sum(pair_contrast(scores, outputs.is_text, outputs.is_image, contrast))
        for scores in (outputs.scores, *outputs.alone)
    ]
    np.testing.assert_allclose(found, np.mean(hinges), rtol=1e-6)
    assert len(np.unique(hinges)) == 3


def one_level(variables):
    """The parameters with a gate of a single level."""
    gate = {"level_kernel": jnp.zeros((1, 1)), "level_bias": jnp.zeros(1)}
    return {"params": variables["params"] | gate}


def test_the_level_that_mines_is_trained_where_it_is_left_out_of_the_score():
    chosen = CHOSEN["cross"] | {"cross_levels": ("fragment",)}
    for mined in (0, 2):
        model = build(**chosen | {"mined_negatives": mined})
        assert (scores_of(model, random_variables(model, GRAPH, INPUTS[0].shape[1:])).whole is not None) == (mined > 0)


def test_negatives_are_drawn_by_their_likeness():
    """The share of draws in which each is the first, against the softmax; at temperature 0 the most alike is."""
    likeness = np.float32([[0.3, -0.1, 0.2, 0.25], [-0.5, 0.6, 0.1, 0.1]])
    keys = jax.random.split(jax.random.key(0), 20_000)
    for temperature in (0.2, jnp.inf):
        drawn = jax.vmap(lambda key, t=temperature: jnp.argmax(drawn_likeness(key, likeness, t), axis=1))(keys)
        shares = np.stack([np.bincount(row, minlength=4) for row in np.asarray(drawn).T]) / len(keys)
        expected = np.exp(likeness / temperature)
        np.testing.assert_allclose(shares, expected / expected.sum(axis=1, keepdims=True), atol=0.012)
    np.testing.assert_array_equal(drawn_likeness(keys[0], likeness, 0.0), likeness)


def test_what_is_no_negative_is_not_mined():
    model = build(**CHOSEN["cross"] | {"mined_negatives": 4})
    outputs = scores_of(model, random_variables(model, GRAPH, INPUTS[0].shape[1:]))
    assert np.asarray(outputs.is_text).sum(axis=1).tolist() == IS_NEGATIVE.sum(axis=1).tolist() == [3, 4, 3, 4, 4]


def test_one_side_after_another_equals_all_at_once():
    """A CPU has the one, an accelerator the other."""
    model = build(**CHOSEN["cross"])
    variables = random_variables(model, GRAPH, INPUTS[0].shape[1:])

    def matrix(variables, *inputs):
        images = model.apply(variables, inputs[0], GRAPH, method="encode_images")
        texts = model.apply(variables, inputs[1], GRAPH, method="encode_texts")
        return model.apply(variables, images, texts, method=models.PairModel.score_matrix)

    np.testing.assert_allclose(similarity(model, variables), compiled(matrix)(variables, *INPUTS), atol=1e-6)


@pytest.mark.parametrize("name", ["t2i_avg", "cross"])
def test_a_pair_needs_no_product_with_a_square_matrix(name):
    """Twice the width is twice the operations of a pair, not four times."""

    def operations(dim):
        model = build(**CHOSEN[name] | {"embedding_dim": dim})
        variables = random_variables(model, GRAPH, INPUTS[0].shape[1:])
        images, texts = jax.eval_shape(
            lambda: (
                model.apply(variables, INPUTS[0], GRAPH, method="encode_images"),
                model.apply(variables, INPUTS[1], GRAPH, method="encode_texts"),
            )
        )
        score = jax.jit(lambda *sides: model.apply(variables, *sides, method="score_matrix"))
        return score.lower(images, texts).cost_analysis()["flops"]

    assert operations(256) < 2.1 * operations(128)
