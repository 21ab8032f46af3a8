"""Each benchmark through its command at a tiny size; the model of costs against XLA's own count."""

import functools
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    collapse,
    compiling,
    detector,
    floor,
    gru,
    levels,
    loss_memory,
    models,
    pairs,
    published,
    recall,
    search,
    step_vs_pytorch,
    synthetic,
    table,
    whole_run,
)
from benchmarks.workload import SIZES, Sizes, make_config
from mhcvse_jax import config as config_lib
from mhcvse_jax.data import dataset, text
from mhcvse_jax.detection.faster_rcnn import Architecture, FasterRCNN
from mhcvse_jax.detection.selection import FIXED_36
from mhcvse_jax.experiment import reading
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.layers.captions import Captions

SIDES = ("ours", "torch")


@pytest.fixture(autouse=True)
def compile_fast():
    """Leaves the precision as it was, too: the commands set it."""
    before = {
        name: jax.config.values[name] for name in ("jax_default_matmul_precision", "jax_disable_most_optimizations")
    }
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def read(path):
    rows = json.loads(path.read_text())
    assert all(set(table.FIGURES) <= set(row) and row["ours"] > 0 and row["theirs"] >= 0 for row in rows)
    return rows


@pytest.mark.once
def test_floor(tmp_path, capsys):
    floor.main(["--size", "tiny", "--rounds", "1", "--width", "32", "--output", str(tmp_path / "floor.json")])
    one, four = (row for row in read(tmp_path / "floor.json") if "whole step" in row["measure"])
    assert "4 at once" in four["measure"]
    assert one["theirs"] == four["theirs"]  # the floor of a step
    assert "farthest from its floor" in capsys.readouterr().out


def test_floor_at_published_rates(capsys):
    """By hand: two products for the projection of features, which need no gradient; memory for the optimiser."""
    floor.main(["--precision", "tf32", "--device_rates", "h100"])
    of_h100 = capsys.readouterr().out
    floor.main(["--precision", "bfloat16", "--device_rates", "h200"])
    of_h200 = capsys.readouterr().out
    sizes = SIZES["full"]
    flops = 2 * 2 * sizes.batch * sizes.regions * sizes.features * sizes.embedding_dim
    num_bytes = 4 * 8 * floor.num_parameters(sizes)
    for printed, tflops, memory in ((of_h100, 494.7, 3.35), (of_h200, 989.4, 4.8)):
        micros = {line[:26].strip(): float(line[42:52]) for line in printed.splitlines()[3:15]}
        assert micros["region projection"] == pytest.approx(flops / tflops / 1e6, abs=0.1)
        assert micros["optimiser"] == pytest.approx(num_bytes / memory / 1e6, abs=0.1)
        parts = sum(value for name, value in micros.items() if name != "whole step")
        assert micros["whole step"] == pytest.approx(parts + sum(micros[name] for name in floor.TWICE), abs=1)
    assert published.of_device("1 x NVIDIA H200") == "h200"
    assert published.of_device("1 x NVIDIA H100 PCIe") is None


def xla_flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


@pytest.mark.once
def test_costs_are_what_xla_counts():
    """At sizes where products outweigh the rest. Captions fill their places, since XLA counts these."""
    sizes = Sizes(16, 24, 96, 128, 64, 4, concepts=48, concept_dim=20, edges=60, vocabulary=50)
    config = make_config(sizes, gru="plain")
    trainer = floor.Trainer(sizes, config)
    (batch,) = floor.make_batches(sizes, config, 1)
    full = batch.captions._replace(lengths=np.full(sizes.batch, batch.captions.tokens.shape[1], np.int32))
    batch = batch._replace(captions=full)
    parts = floor.part_programs(sizes, trainer, batch, "plain", jnp.dtype("float32"))
    costs = floor.costs(sizes, batch.captions.lengths)
    for name in ("region projection", "attention, regions", "attention, words", "consensus", "concept GCN", "fusion"):
        function, arguments = parts[name]
        assert xla_flops(function, *arguments) == pytest.approx(costs[name].flops, rel=0.1), name


def test_cost_of_the_gru_is_what_xla_counts():
    """XLA counts the body of a scan once, however often it runs: two of the recurrence's three products stand there."""
    sizes = Sizes(16, 3, 10, 128, 64, 2, concepts=20, concept_dim=5, edges=30, vocabulary=50)
    num_words = 3
    cells = {name: gru_cell(sizes) for name in ("forward", "backward")}
    words, lengths = jnp.ones((sizes.batch, num_words, sizes.word_dim)), jnp.full(sizes.batch, num_words)

    def gradients(cells, words, lengths, cotangent):
        return jax.vjp(lambda *x: gru.CANDIDATES["scan"](*x, lengths), cells, words)[1](cotangent)

    of_all, of_one = (floor.costs(sizes, np.full(sizes.batch, n)) for n in (num_words, 1))
    recurrence = of_all["GRU, recurrence"].flops / 3 + of_one["GRU, recurrence"].flops * 2 / 3
    cotangent = jnp.ones((2, sizes.batch, num_words, sizes.embedding_dim))
    found = xla_flops(gradients, cells, words, lengths, cotangent)
    assert found == pytest.approx(of_all["GRU, input"].flops + recurrence, rel=0.1)


def gru_cell(sizes):
    inputs = {f"i{gate}": (sizes.word_dim, True) for gate in "rzn"}
    hidden = {f"h{gate}": (sizes.embedding_dim, gate == "n") for gate in "rzn"}
    return {
        name: {"kernel": jnp.ones((width, sizes.embedding_dim))}
        | ({"bias": jnp.ones(sizes.embedding_dim)} if bias else {})
        for name, (width, bias) in (inputs | hidden).items()
    }


@pytest.mark.once
def test_gru(tmp_path, capsys):
    sizes = ["--batch", "8", "--words", "5", "--word_dim", "3", "--dim", "4", "--rounds", "1"]
    gru.main([*sizes, "--pallas", "--output", str(tmp_path / "gru.json")])
    found = {row["measure"].split(" against")[0] for row in read(tmp_path / "gru.json")}
    assert found >= {"GRU: scan", "GRU: packed", "GRU: pallas"}
    assert "values    equal within" in capsys.readouterr().out


@pytest.mark.once
def test_detector(tmp_path, capsys):
    sizes = ["--size", "tiny", "--rounds", "1", "--width", "32", "--picture", "37", "53", "--chunk", "5"]
    detector.main([*sizes, "--output", str(tmp_path / "detector.json")])
    parts = [row["measure"].split(",")[0] for row in read(tmp_path / "detector.json")]
    assert parts[:5] == [
        f"detector: {x}" for x in ("feature map", "proposals", "region features", "choice", "whole picture")
    ]
    assert "part " in capsys.readouterr().out


@pytest.mark.once
def test_operations_of_the_detector_are_those_that_xla_counts():
    architecture, size = Architecture((1, 2, 2, 2), 8, 24, 37, 11), (250, 210)
    model = FasterRCNN(architecture, FIXED_36)
    canvas, cells = jnp.zeros((*size, 3)), jnp.array(size)
    variables = jax.eval_shape(model.init, jax.random.key(0), canvas, cells, jnp.float32(1))
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape), variables)
    expected = detector.flops(architecture, size, num_proposals=31)
    for part, method, arguments in (
        ("feature map", lambda module, *x: module.trunk(*x), (canvas, cells)),
        ("proposals", lambda module, x: module.proposal_head(x), (jnp.zeros((16, 13, 128)),)),
        ("region features", lambda module, x: module.region_features(x), (jnp.zeros((31, 14, 14, 128)),)),
    ):
        counted = xla_flops(functools.partial(model.apply, method=method), variables, *arguments)
        # XLA leaves out what a kernel multiplies beyond the border, and counts sums and maxima, too.
        assert 0.85 < counted / expected[part] < 1.1, part


def test_search(tmp_path, capsys):
    arguments = ["--vectors", "304", "--dim", "16", "--rounds", "1", "--faiss", "Flat", "HNSW8"]
    search.main([*arguments, "--output", str(tmp_path / "search.json")])
    rows = read(tmp_path / "search.json")
    assert [row["recall_at_10"] for row in rows if row["measure"].endswith(("NumPy", "Flat"))] == [1.0] * 4
    assert len(rows) == 8
    assert capsys.readouterr().out.count("times what the product alone takes") == 2


def test_recall(tmp_path):
    arguments = ["--images", "20", "--dim", "8", "--rounds", "1", "--output", str(tmp_path / "recall.json")]
    recall.main(arguments)
    assert len(read(tmp_path / "recall.json")) == 1


@pytest.mark.once
def test_step_vs_pytorch(tmp_path, capsys):
    pytest.importorskip("torch")
    arguments = ["--size", "tiny", "--rounds", "1", "--batches", "1", "--output", str(tmp_path / "step.json")]
    step_vs_pytorch.main(arguments)
    assert len(read(tmp_path / "step.json")) == 6  # two ways of ours, three of theirs
    assert capsys.readouterr().out.count("the same loss and gradient norm") == 3


@pytest.mark.once
def test_recall_vs_pytorch(tmp_path, capsys):
    pytest.importorskip("torch")
    from benchmarks import recall_vs_pytorch

    data, out = tmp_path / "data", tmp_path / "out"
    sizes = ["--train", "40", "--dev", "10", "--test", "10", "--features", "16", "--regions", "4"]
    synthetic.main([str(data), *sizes])
    arguments = ["--data", str(data), "--out", str(out), "--embedding_dim", "8", "--batch_size", "16"]
    arguments += ["--steps", "3", "--epochs", "1", "--seeds", "5"]
    arguments += ["--set", "model.word_dim=4", "concepts.num=10", "data.caption_lengths=(96,)"]
    arguments += ["model.dropout_rate=0.0", "num_epochs=1", "seed=5"]  # one program to compile for both parts
    assert recall_vs_pytorch.main(arguments) == 0
    printed = capsys.readouterr().out
    assert max(json.loads((out / "losses.json").read_text())["relative_difference"]) < 1e-4
    assert (out / "losses.svg").read_text().count("<polyline") == 8
    first, second = ([line for line in printed.splitlines() if line.startswith(f"{side}, seed 5")] for side in SIDES)
    assert len(first) == len(second) == 1
    for line, side in zip(first + second, SIDES, strict=True):
        recalls = json.loads((out / "recalls_seed5.json").read_text())[side]
        six = [recalls[way][name] for way in ("i2t", "t2i") for name in ("r1", "r5", "r10")]
        assert [float(value) for value in line.split()[3:]] == pytest.approx([*six, sum(six)], abs=0.06)
        assert 0 < sum(six) < 600
    assert recall_vs_pytorch.main([*arguments, "--steps", "0"]) == 0  # of what is done already
    assert first[0] in capsys.readouterr().out
    for more, message in (
        (["--data", str(tmp_path)], "recalls_seed5.json is of "),
        (["--steps", "1", "--config", "configs/cvse_f30k.py"], "config.loss.kl_weight is 0.3; expected 2.0"),
    ):
        assert recall_vs_pytorch.main([*arguments, "--steps", "0", *more]) == 2
        assert message in capsys.readouterr().err


def test_pairs(tmp_path, capsys):
    sizes = ["--images", "3", "--captions", "4", "--words", "5", "--dim", "16", "--width", "32", "--rounds", "1"]
    pairs.main([*sizes, "--output", str(tmp_path / "pairs.json")])
    assert len(read(tmp_path / "pairs.json")) == 1
    assert "scores of 3 x 4 pairs, 36 regions, 5 words, D 16" in capsys.readouterr().out


def test_compiled_programs_are_named_and_their_seconds_add_up(capsys):
    def doubled(x):
        return 2 * jax.jit(lambda y: y + 1)(x)

    began = time.process_time()
    with compiling.counted() as programs:
        jax.jit(doubled)(jnp.ones(3))
        jax.jit(doubled)(jnp.ones(5))
    whole = time.process_time() - began
    jax.jit(doubled)(jnp.ones(7))  # no longer counted
    assert programs["doubled"]["programs"] == 2
    assert all(programs["doubled"][stage] > 0 for stage in compiling.STAGES.values())
    assert sum(row[stage] for row in programs.values() for stage in compiling.STAGES.values()) <= whole
    compiling.show(programs)
    assert re.search(r"^doubled +2( +\d\.\d\d){3}$", capsys.readouterr().out, re.MULTILINE)


def test_loss_memory(capsys):
    """Eight devices: a block of 256 x 64 where the whole similarity of a device is 256 x 2,048."""
    loss_memory.main(["--batch", "2048", "--block", "64", "--dim", "16"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "2,048" in line]
    whole, blocks = (float(value.replace(",", "")) for value in re.findall(r"([\d,.]+) MiB", line))
    assert whole > 4 * blocks > 0


def test_synthetic_directory_reads_as_flickr30k_would(tmp_path):
    arguments = ["--train", "600", "--dev", "4", "--test", "4", "--regions", "2", "--features", "3"]
    synthetic.main([str(tmp_path), *arguments])
    config = config_lib.base()
    config.concepts.num = 100
    data = reading.load_training(config, tmp_path)
    assert data.train.regions.shape == (600, 2, 3)
    assert len(data.language.concepts.words) == 100
    assert data.train.lengths.mean() == pytest.approx(10.36, abs=0.3)  # of Flickr30k, stop words removed
    kept = [len(text.tokenize(caption)) + 2 for caption in data.train.captions]
    assert np.mean(kept) == pytest.approx(15.41, abs=0.5)


def test_batches_have_real_lengths():
    lengths = synthetic.caption_lengths(np.linspace(0, 1, 145_000, endpoint=False), remove_stop_words=True)
    assert (lengths.min(), lengths.max(), np.median(lengths)) == (3, 54, 10)
    sizes = SIZES["full"]
    (batch,) = floor.make_batches(Sizes(batch=sizes.batch, regions=2, features=3), make_config(sizes), 1)
    captions = batch.captions
    assert captions.tokens.shape[1] in config_lib.base().data.caption_lengths
    assert not np.any(captions.tokens[~captions.mask])


def test_table(tmp_path):
    recall.main(["--images", "20", "--dim", "8", "--rounds", "1", "--output", str(tmp_path / "results" / "a.json")])
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.main(["--results", str(tmp_path / "results"), "--readme", str(readme)])
    assert "| recall of 20 x 100, D 8, against NumPy loops |" in readme.read_text()
    assert "old" not in readme.read_text()
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith("\nafter\n")


@pytest.mark.once
def test_whole_run(tmp_path, capfd):
    sizes = ["--train", "20", "--dev", "8", "--test", "8", "--features", "5", "--regions", "2"]
    synthetic.main([str(tmp_path / "data"), *sizes])
    values = [
        *("batch_size=16", "eval.batch_size=16", "concepts.num=4", "concepts.shares=(1,1,0)", "text.min_count=1"),
        *("model.num_heads=2", "model.embedding_dim=8", "model.word_dim=4", "model.gru=plain"),
        "data.caption_lengths=(64,)",
    ]
    output = tmp_path / "whole_run.json"
    arguments = ["--data", str(tmp_path / "data"), "--epochs", "1", "--placements", "device", "--output", str(output)]
    whole_run.main([*arguments, "--set", *values])
    seconds, memory = read(output)
    assert (seconds["unit"], memory["unit"], seconds["ratio"]) == ("s", "GB", 1)
    assert 0.05 < memory["ours"] < 4
    assert "features on the device" in capfd.readouterr().out


@pytest.mark.once
def test_models_are_trained_and_tabulated_once(tmp_path, capfd):
    data, out = tmp_path / "data", tmp_path / "runs"
    synthetic.main([str(data), "--train", "40", "--dev", "10", "--test", "10", "--features", "16"])
    small = ("model.embedding_dim=8", "model.word_dim=4", "num_epochs=1", "batch_size=16", "concepts.num=10")
    arguments = ["--data", str(data), "--out", str(out), "--seeds", "3", "--models", "vsepp"]
    arguments += ["--config", "configs/f30k_small.py"]
    arguments += ["--set", *small, "data.caption_lengths=(96,)"]
    assert models.main(arguments) == 0
    printed = capfd.readouterr().out
    assert "run 1 of 1: vsepp, seed 3" in printed
    (row,) = [line for line in printed.splitlines() if line.startswith("| vsepp |")]
    trained, tested = map(float, row.split("|")[2:4])
    assert trained >= 0
    assert tested > 0
    assert "vsepp" in (out / "models.md").read_text()
    assert models.main([*arguments, "--table_only"]) == models.main(arguments) == 0
    printed = capfd.readouterr().out
    assert "run 1 of 1" not in printed
    assert printed.count(row) == 2


@pytest.mark.once
def test_a_stay_at_the_collapse_value_and_a_fall_are_told(tmp_path, capfd, finished):
    steps = np.arange(1, 401)
    losses = np.where((steps > 50) & (steps <= 217) | (steps > 390), 0.96, 0.94)
    assert collapse.longest_stay(steps, losses, np.ones(400)) == 117  # of the first hundred none counts

    for name, loss, rsums, code in (
        ("sound", 3.0, (90, 100, 96), 0),
        ("stuck", 6.2, (1, 2, 2), 3),
        ("fell", 3.0, (100, 94), 3),
        ("untrained", 3.0, (90, 100, 96), 0),
    ):
        run = tmp_path / name
        run.mkdir()
        config = json.loads((finished[0] / "config.json").read_text())
        terms = {"loss_fusion": loss}
        if name == "untrained":
            config["loss"]["consensus_weight"] = 0.0
            terms["loss_consensus"] = 6.2
        (run / "config.json").write_text(json.dumps(config))
        lines = [{"step": step, "kind": "train", **terms} for step in range(1, 300)]
        lines += [{"step": 99 * (epoch + 1), "kind": "dev_fused", "rsum": rsum} for epoch, rsum in enumerate(rsums)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert collapse.main([str(run)]) == code
    printed = capfd.readouterr().out
    for row in (
        "| sound | 0 | - | - | 96.0 | 100.0 |",
        "| stuck | 199 | - | - |",
        "| fell | 0 | - | - | 94.0 | 100.0 |",
        "| untrained | 0 | - | - | 96.0 | 100.0 |",
    ):
        assert row in printed
    assert collapse.main([str(tmp_path)]) == 2

    picture = tmp_path / "losses.svg"
    assert collapse.main([str(tmp_path / "sound"), str(tmp_path / "stuck"), "--draw", str(picture)]) == 3
    drawn = picture.read_text()
    assert ">sound<" in drawn
    assert ">all embeddings alike<" in drawn


@pytest.mark.once
def test_levels_of_a_cross_attention(pair_model, capfd):
    """The global level ranks as one product of both wholes does, whatever the others do."""
    workdir, _ = pair_model
    data = workdir / "scenes"
    assert levels.main(["--workdir", str(workdir), "--data", str(data), "--captions", "25"]) == 0
    printed = capfd.readouterr().out.splitlines()
    rows = {line.split("|")[0].split()[-1]: line.split("|")[1:3] for line in printed if line.startswith("test,")}
    assert list(rows) == ["score", "fragment", "context", "global"]
    experiment = Experiment.of_workdir(workdir)
    split = dataset.first_captions(experiment.load_split(data, "test", (1,)), 25)
    variables, _ = experiment.restore_best(split.regions.shape[1:])
    captions = Captions(split.tokens.padded(slice(None), 32), split.lengths, split.caption_labels)

    @jax.jit
    def compare(*inputs):
        apply = functools.partial(experiment.model.apply, variables, graph=experiment.graph)
        images, texts = (
            apply(each, method=f"encode_{side}") for each, side in zip(inputs, ("images", "texts"), strict=True)
        )
        return images.whole @ texts.whole.T

    similarity = np.asarray(compare(split.regions.read(np.arange(5)), captions))
    own = similarity[split.image_of_caption, np.arange(25)]
    ranks = 1 + np.sum((similarity >= own) & (np.arange(5)[:, None] != split.image_of_caption), axis=0)
    found = list(map(float, rows["global"][1].split()))
    assert found[:3] == [pytest.approx(100 * np.mean(ranks <= k), abs=0.051) for k in (1, 5, 10)]
    assert found[4] == pytest.approx(ranks.mean(), abs=0.051)
