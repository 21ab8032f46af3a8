"""Scores of pairs in blocks against pairs one by one; re-ranking against loops, and all of it against the matrix."""

import dataclasses

import jax
import numpy as np
import oracle
import pytest
from parameters import random_variables

from mhcvse_jax import config, models
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.regions import MappedRegions
from mhcvse_jax.data.text import EncodedCaptions
from mhcvse_jax.devices.mesh import make_mesh
from mhcvse_jax.evaluation import protocols, rerank
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.retrieval.pairs import PairBlocks, PairScorer, ScoredSplit
from mhcvse_jax.retrieval.similarity import Similarity
from mhcvse_jax.training.step import init_variables

IMAGES, PER_IMAGE, REGIONS, FEATURES, CONCEPTS, WORDS, VOCABULARY = 13, 5, 3, 7, 5, 29, 17
OWNER = np.repeat(np.arange(IMAGES, dtype=np.int32), PER_IMAGE)
MODELS = {"scan": {"num_heads": 0}, "cross_attention": {"num_heads": 2}}


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    captions = IMAGES * PER_IMAGE
    lengths = rng.integers(2, WORDS + 1, captions).astype(np.int32)
    tokens = rng.integers(1, VOCABULARY, (captions, WORDS)).astype(np.int32)
    regions = rng.standard_normal((IMAGES, REGIONS, FEATURES)).astype(np.float32)
    return Split(
        name="test",
        regions=MappedRegions(regions, rows=np.arange(IMAGES)),
        captions=[""] * captions,
        tokens=EncodedCaptions.of_lengths(tokens[np.arange(WORDS) < lengths[:, None]], lengths),
        image_of_caption=OWNER,
        image_labels=np.zeros((IMAGES, CONCEPTS), bool),
        caption_labels=np.zeros((captions, CONCEPTS), bool),
        image_ids=[""] * IMAGES,
        image_names=None,
    )


@pytest.fixture(scope="module", params=MODELS)
def system(request):
    values = config.base().model
    values.update({"name": request.param, "embedding_dim": 8, "word_dim": 5, **MODELS[request.param]})
    model = models.build(values, vocabulary_size=VOCABULARY, dtype="float32")
    ones = np.ones(CONCEPTS, np.float32)
    graph = concept_graph(np.ones((CONCEPTS, 3), np.float32), np.arange(CONCEPTS), np.arange(CONCEPTS), ones)
    variables = jax.jit(lambda key: init_variables(model, graph, (REGIONS, FEATURES), key))(jax.random.key(0))
    return model, graph, variables


def scorer(system, num_devices, images=8, captions=16, resident=1024, precision=None):
    model, graph, _ = system
    mesh = make_mesh(jax.devices()[:num_devices])
    blocks = PairBlocks(images, captions, resident)
    settings = {"caption_lengths": (16, 24), "threads": 2, "prefetch": 2, "precision": precision}
    return PairScorer(model, graph, mesh, blocks=blocks, **settings)


@pytest.fixture(scope="module")
def one_by_one(system, split):
    model, graph, variables = system

    @jax.jit
    def score(regions, tokens, lengths):
        image = model.apply(variables, regions[None], graph, method="encode_images")
        caption = Captions(tokens[None], lengths[None], np.zeros((1, CONCEPTS), bool))
        text = model.apply(variables, caption, graph, method="encode_texts")
        return model.apply(variables, *jax.tree.map(lambda x: x[0], (image, text)), method="score_pair")

    regions = split.regions.read(np.arange(IMAGES))
    tokens = split.tokens.padded(slice(None), WORDS)
    return np.array([[score(r, *each) for each in zip(tokens, split.lengths, strict=True)] for r in regions])


@pytest.mark.parametrize(("num_devices", "sizes"), [(1, (3, 7, 5)), (8, (8, 16, 1024))])
def test_blocks_hold_what_pairs_one_by_one_have(system, split, one_by_one, num_devices, sizes):
    found = scorer(system, num_devices, *sizes)(system[2], split).scores
    assert np.std(one_by_one) > 0.01
    np.testing.assert_allclose(found, one_by_one, atol=2e-6)


def test_chosen_pairs_have_their_scores(system, split, one_by_one):
    rng = np.random.default_rng(4)
    images, captions = rng.integers(0, IMAGES, 37), rng.integers(0, len(OWNER), 37)
    found = scorer(system, 8, resident=6).score_pairs(system[2], split, images, captions)
    np.testing.assert_allclose(found, one_by_one[images, captions], atol=2e-6)


def test_a_side_is_computed_once(split):
    """Every picture is read once, however many blocks of pairs it is in."""
    read = []

    class Counting(MappedRegions):
        def read(self, images):
            read.extend(set(images.tolist()))  # a block repeats its last to be full
            return super().read(images)

    counted = dataclasses.replace(split, regions=Counting(split.regions.array, rows=np.arange(IMAGES)))
    values = config.base().model
    values.update({"name": "scan", "embedding_dim": 8, "word_dim": 5, "num_heads": 0})
    model = models.build(values, vocabulary_size=VOCABULARY, dtype="float32")
    ones = np.ones(CONCEPTS, np.float32)
    graph = concept_graph(np.ones((CONCEPTS, 3), np.float32), np.arange(CONCEPTS), np.arange(CONCEPTS), ones)
    variables = random_variables(model, graph, (REGIONS, FEATURES))
    scorer((model, graph, variables), 1, 4, 8, 8)(variables, counted)
    assert sorted(read) == list(range(IMAGES))


@pytest.mark.parametrize("way", ["all", "chosen"])
def test_no_more_than_a_panel_of_pictures_lies_on_the_device(system, split, way):
    model, graph, variables = system
    held = []  # on the devices, when the first picture of each panel of four is read

    class Noting(MappedRegions):
        def read(self, images):
            if images[0] % 4 == 0:
                held.append(sum(x.nbytes for x in jax.live_arrays()))
            return super().read(images)

    regions = Noting(split.regions.array, rows=np.arange(IMAGES))
    noted = dataclasses.replace(split, regions=regions)
    score = scorer(system, 1, images=2, captions=16, resident=4)
    if way == "all":
        score(variables, noted)
    else:
        score.score_pairs(variables, noted, OWNER, np.arange(len(OWNER)))
    side = jax.eval_shape(lambda x: model.apply(variables, x, graph, method="encode_images"), regions.array[:4])
    panel = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(side))
    assert len(held) == 4
    assert max(held) - min(held) < panel / 2


def test_two_models_in_one_process_have_each_its_own_precision(split):
    traced = []

    class Noting(models.SCAN):
        def encode_images(self, *arguments, **options):
            traced.append(jax.config.values["jax_default_matmul_precision"])
            return super().encode_images(*arguments, **options)

    values = config.base().model
    values.update({"name": "scan", "embedding_dim": 8, "word_dim": 5, "num_heads": 0})
    fields = {key: values[key] for key in models.keys("scan") & set(values)}
    model = Noting(vocabulary_size=VOCABULARY, dtype=np.dtype("float32"), similarity_scale=0.0, **fields)
    ones = np.ones(CONCEPTS, np.float32)
    graph = concept_graph(np.ones((CONCEPTS, 3), np.float32), np.arange(CONCEPTS), np.arange(CONCEPTS), ones)
    variables = random_variables(model, graph, (REGIONS, FEATURES))
    traced.clear()
    both = [scorer((model, graph, variables), 1, precision=precision) for precision in ("highest", None)]
    for one in both:
        one(variables, split)
    assert traced == ["highest", None]


def similarities(seed):
    """Random ones, with ties: first similarity and second score."""
    rng = np.random.default_rng(seed)
    first, second = (np.round(rng.normal(size=(IMAGES, len(OWNER))), 1).astype(np.float32) for _ in range(2))
    first[np.arange(IMAGES)[:, None] == OWNER] += 1
    return Similarity(*first.shape, lambda start, stop: first[start:stop]), first, second


def test_re_ranking_all_is_the_ranking_of_the_second():
    similarity, _, second = similarities(0)
    score = lambda images, captions: second[images, captions]  # noqa: E731
    found = rerank.reranked(similarity, score, OWNER, top_k=10_000, folds=(1,))[1]
    expected = protocols.split_ranks(ScoredSplit(second), OWNER, kind="fused", consensus_weight=0.0, folds=1)
    np.testing.assert_array_equal(found.i2t, expected.i2t)
    np.testing.assert_array_equal(found.t2i, expected.t2i)
    np.testing.assert_array_equal(expected.i2t, oracle.ranks(second, OWNER)[0])


@pytest.mark.parametrize("top_k", [1, 4])
def test_re_ranking_equals_the_loops(top_k):
    similarity, first, second = similarities(1)
    asked = []

    def score(images, captions):
        asked.extend(zip(images.tolist(), captions.tolist(), strict=True))
        return second[images, captions]

    found = rerank.reranked(similarity, score, OWNER, top_k=top_k, folds=(1,))[1]
    before = oracle.ranks(first, OWNER)
    changed = 0
    for way, (scores, fast, is_own) in enumerate(
        ((second, first, np.arange(IMAGES)[:, None] == OWNER), (second.T, first.T, OWNER[:, None] == np.arange(IMAGES)))
    ):
        for query in range(len(scores)):
            best = sorted(range(scores.shape[1]), key=lambda j: (-fast[query, j], j))[:top_k]
            right = [scores[query, j] for j in best if is_own[query, j]]
            rank = before[way][query]
            if right:
                rank = 1 + sum(scores[query, j] >= max(right) for j in best if not is_own[query, j])
            assert found[way][query] == rank
            changed += rank != before[way][query]
    assert (changed > 3) == (top_k > 1)
    assert len(asked) == len(set(asked)) <= top_k * (IMAGES + len(OWNER))


def test_candidates_stay_in_their_fold():
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(12, 60)).astype(np.float32)
    owner = np.repeat(np.arange(12), 5)
    similarity = Similarity(*matrix.shape, lambda start, stop: matrix[start:stop])
    captions, images = rerank.candidates(similarity, owner, top_k=100, folds=3)
    assert captions.shape == (12, 20)
    assert images.shape == (60, 4)
    assert (captions // 20 == np.arange(12)[:, None] // 4).all()
    assert (images // 4 == owner[:, None] // 4).all()
