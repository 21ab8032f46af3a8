"""Steps fed by the host one by one, and several at a time from features on the devices, are the same steps."""

import dataclasses
import os
import subprocess
import sys
from types import SimpleNamespace

import flax.linen as nn
import front_door
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import variants

from mhcvse_jax import config as config_lib
from mhcvse_jax.data import batches
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.regions import MappedRegions
from mhcvse_jax.data.text import EncodedCaptions
from mhcvse_jax.devices import distributed, memory
from mhcvse_jax.devices.compilation import Compilations
from mhcvse_jax.devices.mesh import make_mesh
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import training_parts
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.layers.normalize import l2_normalize
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.training import feed as feed_module
from mhcvse_jax.training import resident
from mhcvse_jax.training.feed import HostFeed, ResidentFeed, make_feed, make_resident_feed
from mhcvse_jax.training.step import initialize, make_train_step

IMAGES, PER_IMAGE, REGIONS, FEATURES, CONCEPTS, BATCH = 21, 2, 3, 5, 4, 8
STEPS = IMAGES * PER_IMAGE // BATCH


def make_split(num_images=IMAGES):
    rng = np.random.default_rng(0)
    captions = num_images * PER_IMAGE
    lengths = rng.integers(2, 8, captions).astype(np.int32)
    lengths[::9] = 9  # so that some batches are padded further than others
    tokens = rng.integers(1, 10, (captions, 9)).astype(np.int32)
    features = rng.standard_normal((num_images, REGIONS, FEATURES)).astype(np.float32)
    return Split(
        name="train",
        regions=MappedRegions(features, np.arange(num_images)),
        captions=[""] * captions,
        tokens=EncodedCaptions.of_lengths(tokens[np.arange(9) < lengths[:, None]], lengths),
        image_of_caption=np.repeat(np.arange(num_images, dtype=np.int32), PER_IMAGE),
        image_labels=rng.random((num_images, CONCEPTS)) < 0.4,
        caption_labels=rng.random((captions, CONCEPTS)) < 0.4,
        image_ids=[f"id{i}" for i in range(num_images)],
        image_names=None,
    )


def make_config(**values):
    config = config_lib.base()
    config.batch_size, config.num_epochs, config.steps_per_dispatch = BATCH, 2, 3
    config.data.caption_lengths, config.concepts.training_label = (7, 9), "caption"
    for key, value in values.items():
        config[key] = value
    return config


class Stub(nn.Module):
    """The least that tells batches apart, with dropout that depends on their width: it compiles in no time."""

    @nn.compact
    def __call__(
        self,
        regions,
        captions,
        graph,
        is_negative=None,
        mining_temperature=0.0,
        *,
        num_regions=None,
        train,
    ):
        if num_regions is not None:
            regions = jnp.where(jnp.arange(REGIONS)[:, None] < num_regions[:, None, None], regions, 1.0)
        words = nn.Dropout(0.3, deterministic=not train)(nn.Embed(10, 6)(captions.tokens))
        words = jnp.where(captions.mask[..., None], words, 0).sum(axis=1)
        x, y = l2_normalize(nn.Dense(6)(regions.mean(axis=1))), l2_normalize(words + nn.Dense(6)(captions.labels))
        return Embeddings(x, x, x, nn.softmax(x)), Embeddings(y, y, y, nn.softmax(y))


class Training:
    """The parts of a training, and the states and metrics that a feed leads to."""

    def __init__(self, config, num_devices, **split):
        self.config, self.mesh = config, make_mesh(jax.devices()[:num_devices])
        self.split = dataclasses.replace(make_split(), **split)
        edges = np.arange(CONCEPTS)
        graph = concept_graph(np.eye(CONCEPTS, 3, dtype=np.float32), edges, edges, np.ones(CONCEPTS, np.float32))
        self.parts = training_parts.step_parts(config, Stub(), graph, self.mesh, STEPS)

    def start(self):
        return initialize(self.parts, regions_shape=(REGIONS, FEATURES), seed=1)

    def feed(self, placement):
        settings = training_parts.feed_settings(self.config)
        if placement == "host":
            return HostFeed(settings, self.split, self.mesh, make_train_step(self.parts))
        return make_resident_feed(self.parts, settings, self.split, self.start(), placement)

    def run(self, feed, first_step=0):
        state, taken, metrics = self.start(), [], []
        for next_state, num_steps, values in feed.epoch(state, 1, first_step):
            state = next_state
            taken.append(num_steps)
            metrics += [{k: float(np.ravel(v)[i]) for k, v in values.items()} for i in range(num_steps)]
        return jax.device_get(state.params), metrics, taken


def assert_same(found, expected):
    """Up to the order of float32 sums."""
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found[0], expected[0])


@pytest.fixture(scope="module")
def training():
    return Training(make_config(), 4)


@pytest.fixture(scope="module")
def by_host(training):
    return training.feed("host")


@pytest.mark.parametrize("placement", variants(["replicated", "sharded"], first_python=("replicated",)))
def test_features_on_the_devices_train_alike(training, by_host, placement):
    feed = training.feed(placement)
    expected, found = training.run(by_host), training.run(feed)
    assert expected[2] == [1] * STEPS
    assert found[2] == [3, 2]
    assert_same(found, expected)
    assert_same(training.run(feed, first_step=2), training.run(by_host, first_step=2))  # as an epoch is gone on with


def test_slow_steps_are_handed_over_one_by_one(training, by_host, monkeypatch):
    monkeypatch.setattr(feed_module, "SLOW_SECONDS", 0.0)
    found = training.run(training.feed("replicated"))
    assert found[2] == [3, 1, 1]
    assert_same(found, training.run(by_host))
    monkeypatch.setattr(feed_module, "SLOW_SECONDS", 10.0)
    assert [feed_module._steps_at_once(now, 8, took) for now, took in ((8, 11), (1, 99), (4, 5), (3, 2))] == [
        4,
        1,
        4,
        6,
    ]


@pytest.mark.parametrize("how", variants(["a file", "zeros"], first_python=("a file",)))
def test_regions_of_varying_number_train_alike(training, by_host, how):
    numbers = np.random.default_rng(1).integers(1, REGIONS + 1, IMAGES).astype(np.int32)
    features = make_split().regions.array.copy()
    is_padding = np.arange(REGIONS) >= numbers[:, None]
    features[is_padding] = np.nan if how == "a file" else 0.0
    given = {"num_regions": numbers} if how == "a file" else {"zero_regions_are_padding": True}
    uneven = Training(make_config(), 4, regions=MappedRegions(features, np.arange(IMAGES)), **given)
    expected = uneven.run(uneven.feed("host"))
    assert abs(expected[1][-1]["loss"] - training.run(by_host)[1][-1]["loss"]) > 1e-3
    for placement in ("replicated", "sharded"):
        assert_same(uneven.run(uneven.feed(placement)), expected)
        reading = {"dtype": "float32", "training_label": "caption", "threads": 2, "prefetch": 2}
        data = resident.place(uneven.split, uneven.mesh, placement, **reading)
        np.testing.assert_array_equal(data.num_regions[:IMAGES], numbers)


def test_batches_have_several_lengths(training):
    """Else the test above would say nothing of them."""
    _, lengths = batches.epoch_plan(training.split, (7, 9), batch_size=BATCH, seed=0, epoch=1)
    assert set(lengths) == {7, 9}


@pytest.mark.parametrize(("placement", "num_devices"), [("replicated", 1), ("replicated", 4), ("sharded", 4)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_are_placed_whole(monkeypatch, placement, num_devices, dtype):
    monkeypatch.setattr(resident, "CHUNK_BYTES", 4 * 4 * REGIONS * FEATURES)  # four pictures at once
    split, mesh = make_split(), make_mesh(jax.devices()[:num_devices])
    reading = {"dtype": dtype, "threads": 2, "prefetch": 8}
    placed = resident.place(split, mesh, placement, training_label="caption", **reading)
    shapes = resident.shapes(split, mesh, placement, dtype)
    sides = ([(x.shape, x.dtype, x.sharding) for x in jax.tree.leaves(side)] for side in (placed, shapes))
    assert next(sides) == next(sides)
    expected = split.regions.array.astype(placed.regions.dtype)
    np.testing.assert_array_equal(np.asarray(placed.regions)[:IMAGES], expected)
    if placement == "sharded":
        assert {shard.data.shape[0] for shard in placed.regions.addressable_shards} == {6}  # 21 pictures, 4 devices
    np.testing.assert_array_equal(placed.labels, split.caption_labels)
    of_pictures = resident.place(split, mesh, placement, training_label="image", **reading).labels
    np.testing.assert_array_equal(of_pictures, np.repeat(split.image_labels, PER_IMAGE, axis=0))


def test_a_feature_that_is_not_finite_is_named_before_the_first_step():
    split = make_split()
    split.regions.array[13, 1, 2] = np.nan
    with pytest.raises(InputError, match=r"picture id13 \(row 13\), region 1 holds nan at 2"):
        resident.place(
            *(split, make_mesh(jax.devices()[:1]), "replicated"),
            **{"dtype": "float32", "training_label": "image", "threads": 2, "prefetch": 8},
        )


@pytest.mark.parametrize(
    ("wanted", "free_each", "num_devices", "expected"),
    [
        ("auto", None, 1, "host"),  # not known
        ("device", None, 1, "replicated"),
        ("host", 10**9, 1, "host"),
        ("auto", 2 * 1260, 1, "replicated"),
        ("auto", 2 * 1260 - 2, 1, "host"),
        ("device", 1, 1, "replicated"),  # a CPU, as its user wants it
        ("device", 1, 4, "sharded"),
        ("auto", 2 * 1260, 4, "replicated"),
        ("auto", 2 * 1260 - 2, 4, "sharded"),
        ("auto", 2 * 1260 // 4, 4, "sharded"),
        ("auto", 2 * 1260 // 4 - 2, 4, "host"),
    ],
)
def test_where_features_go(wanted, free_each, num_devices, expected):
    """1,260 bytes of them may take half of what is free."""
    mesh = make_mesh(jax.devices()[:num_devices])
    assert resident.choose_placement(wanted, 1260, mesh, free_each).placement == expected


def test_devices_of_one_cpu_share_its_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_on_host", lambda: 7000)
    assert resident.free_each(make_mesh(jax.devices()[:1])) == 7000
    assert resident.free_each(make_mesh(jax.devices()[:4])) == 1750


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([["a", 2, 6000], ["b", 2, 9000]], 3000),
        ([["a", 2, 6000], ["a", 1, 6600]], 2000),  # two processes on one machine
        ([["a", 2, 6000], ["b", 2, None]], None),
        ([[None, 2, 6000], [None, 2, 5000]], 5000),  # accelerators, each with memory of its own
    ],
)
def test_the_least_device_of_all_processes_counts(monkeypatch, reports, expected):
    monkeypatch.setattr(distributed, "from_all", lambda mine: reports)
    assert resident.free_each(make_mesh(jax.devices()[:1])) == expected


def test_a_run_goes_on_where_its_features_were():
    mesh, plenty, little = make_mesh(jax.devices()[:1]), 10**6, 10
    for before, free_each, expected in ((False, plenty, "host"), (True, plenty, "replicated"), (True, little, "host")):
        choice = resident.choose_placement("auto", 1260, mesh, free_each, were_on_devices=before)
        assert choice.placement == expected
    assert resident.choose_placement("device", 1260, mesh, plenty, were_on_devices=False).placement == "replicated"


def test_features_that_fit_no_accelerator_are_refused():
    gpus = SimpleNamespace(devices=np.array([SimpleNamespace(platform="gpu")] * 2), size=2)
    with pytest.raises(InputError, match=r"config.data.placement is 'device', but the features take .* GB; expected"):
        resident.choose_placement("device", 1260, gpus, 100)


@pytest.mark.parametrize(
    ("free", "on_devices", "says"),
    [
        (16.2e9, True, "features  on the devices, replicated: 0.00 GB in float32, at most half of the 16.2 GB free\n"),
        (1e3, False, "features  read from the host as steps need them: 0.00 GB in float32, more than half of the"),
        (None, False, "as the free memory is unknown"),
    ],
)
def test_the_choice_and_its_reason_are_said(capsys, monkeypatch, free, on_devices, says):
    monkeypatch.setattr(memory, "free_on_host", lambda: free)
    alone = Training(make_config(), 1)
    feed = make_feed(alone.parts, training_parts.feed_settings(alone.config), alone.split, alone.start())
    assert feed.on_devices == on_devices
    assert says in capsys.readouterr().out


def test_a_rare_length_is_not_compiled_for():
    split = make_split(900)
    split.lengths[:] = 5
    split.lengths[7] = 9
    split.lengths[11] = 12
    lengths = batches.training_lengths(split, (5, 9, 12, 99), batch_size=4, seed=0)
    assert lengths == (5, 12)  # 12 is what the longest needs, however rare


def test_nothing_is_compiled_after_the_first_epoch(training):
    feed = training.feed("replicated")
    assert isinstance(feed, ResidentFeed)
    training.run(feed)
    counter = Compilations()
    state = training.start()
    counter.describe_new()
    for epoch in range(3):
        for next_state, _, _ in feed.epoch(state, epoch, 0):
            state = next_state
    jax.block_until_ready(state)
    assert counter.number == 0
    jax.jit(lambda x: x * 3.25 + epoch)(np.ones(7))
    assert counter.number == 1
    assert counter.describe_new().startswith("compiled  1 programs, 0 more were in the cache; ")
    assert counter.describe_new() is None
    counter.close()


@pytest.mark.parametrize(
    ("more", "expected"),
    [({}, "{}/mhcvse_jax/compiled-"), ({"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}, "/elsewhere\n")],
)
def test_where_compiled_programs_are_kept(tmp_path, more, expected):
    keep = "import jax; from mhcvse_jax.devices.compilation import keep_compiled; keep_compiled(); "
    script = keep + "print(jax.config.jax_compilation_cache_dir)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | {"XDG_CACHE_HOME": str(tmp_path)} | more,
        cwd=front_door.ROOT,
        text=True,
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith(expected.format(tmp_path))
