"""Bootstrap intervals: against loops over the same draws, against an independent bootstrap, and their coverage."""

import numpy as np

from mhcvse_jax.comparison import bootstrap
from mhcvse_jax.comparison.bootstrap import intervals
from mhcvse_jax.comparison.entry import RECALLS, Hits

CAPTIONS = (3, 1, 7, 0, 5, 1, 2, 4, 0, 3, 5)  # a picture without captions is no query
OWNER = np.repeat(np.arange(len(CAPTIONS)), CAPTIONS)


def random_hits(rng):
    """Returns hits that rise with K; shares, as of several seeds."""
    return Hits(
        np.cumsum(rng.random((len(CAPTIONS), 3)) / 3, axis=1) * (np.array(CAPTIONS) > 0)[:, None],
        np.cumsum(rng.random((len(OWNER), 3)) / 3, axis=1),
        OWNER,
    )


def recalls(hits, pictures):
    """Returns rsum, i2t R@1 and t2i R@1 of the pictures drawn, query by query."""
    i2t = [hits.i2t[picture] for picture in pictures if CAPTIONS[picture]]
    t2i = [hits.t2i[caption] for picture in pictures for caption in range(len(OWNER)) if OWNER[caption] == picture]
    means = 100 * np.mean(i2t, axis=0), 100 * np.mean(t2i, axis=0)
    return np.array([means[0].sum() + means[1].sum(), means[0][0], means[1][0]])


def test_intervals_equal_loops_over_the_same_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    systems, baseline = [random_hits(rng) for _ in range(2)], random_hits(rng)
    found = intervals(systems, baseline, num_draws=31, seed=5)
    draws = np.random.default_rng(5)
    drawn = [row for size in (7, 7, 7, 7, 3) for row in draws.integers(len(CAPTIONS), size=(size, len(CAPTIONS)))]
    for system, by_measure in zip(systems, found, strict=True):
        differences = [recalls(system, pictures) - recalls(baseline, pictures) for pictures in drawn]
        expected = np.percentile(differences, [2.5, 97.5], axis=0).T
        np.testing.assert_allclose([by_measure[name] for name in bootstrap.MEASURES], expected, rtol=1e-9)


def test_intervals_equal_an_independent_bootstrap():
    rng = np.random.default_rng(3)
    system, baseline = random_hits(rng), random_hits(rng)
    found = intervals([system], baseline, num_draws=20_000, seed=0)[0]
    differences = []
    for _ in range(3000):
        pictures = rng.integers(0, len(CAPTIONS), len(CAPTIONS)).tolist()
        differences.append(recalls(system, pictures) - recalls(baseline, pictures))
    expected = np.percentile(differences, [2.5, 97.5], axis=0)
    error = 0.1 * np.std(differences, axis=0)
    found = np.array([found[name] for name in bootstrap.MEASURES]).T
    assert (np.abs(found - expected) < error).all()


def test_a_system_does_not_differ_from_itself():
    hits = random_hits(np.random.default_rng(2))
    for interval in intervals([hits], hits, num_draws=100, seed=0)[0].values():
        assert interval == (0, 0)


def test_draws_are_seeded_and_shared():
    rng = np.random.default_rng(3)
    system, other, baseline = (random_hits(rng) for _ in range(3))
    both = intervals([system, other], baseline, num_draws=50, seed=1)
    assert both == intervals([system, other], baseline, num_draws=50, seed=1)
    alone = intervals([other], baseline, num_draws=50, seed=1)[0]
    np.testing.assert_allclose([both[1][name] for name in alone], list(alone.values()), rtol=1e-9)
    assert both != intervals([system, other], baseline, num_draws=50, seed=2)
    assert intervals([], baseline, num_draws=50, seed=1) == []


def population(rng, num_images, per_image, share):
    """Returns hits of a system right on that share of queries, mostly on all captions of a picture or on none."""
    picture = rng.random((num_images, 1)) < share
    alone = rng.random((num_images, per_image)) < share
    together = rng.random((num_images, per_image)) < 0.8
    captions = np.where(together, picture, alone).reshape(-1, 1)
    owner = np.repeat(np.arange(num_images), per_image)
    return Hits(np.repeat(picture, 3, axis=1).astype(float), np.repeat(captions, 3, axis=1).astype(float), owner)


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    """Systems that are right on 60% and 50% of an endless population, tested on 150 pictures of it, 400 times over."""
    rng = np.random.default_rng(4)
    truth = {"rsum": 60, "i2t_r1": 10, "t2i_r1": 10}
    covered = dict.fromkeys(truth, 0)
    times = 400
    for seed in range(times):
        system, baseline = (population(rng, 150, 5, share) for share in (0.6, 0.5))
        found = intervals([system], baseline, num_draws=500, seed=seed)[0]
        for name, value in truth.items():
            covered[name] += found[name].low <= value <= found[name].high
    for name, count in covered.items():
        assert 0.91 < count / times < 0.98, name


def test_intervals_of_recalls_equal_loops_over_the_same_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 7)
    hits = random_hits(np.random.default_rng(6))
    found = bootstrap.recall_intervals(hits, num_draws=31, seed=5)
    draws, rows = np.random.default_rng(5), []
    for size in (7, 7, 7, 7, 3):
        for pictures in draws.integers(len(CAPTIONS), size=(size, len(CAPTIONS))):
            captions = [caption for picture in pictures for caption in np.flatnonzero(picture == OWNER)]
            described = [picture for picture in pictures if CAPTIONS[picture]]
            i2t, t2i = 100 * hits.i2t[described].mean(axis=0), 100 * hits.t2i[captions].mean(axis=0)
            rows.append([*i2t, *t2i, i2t.sum() + t2i.sum()])
    expected = np.percentile(rows, [2.5, 97.5], axis=0).T
    np.testing.assert_allclose([found[name] for name in (*RECALLS, "rsum")], expected, rtol=1e-9)
