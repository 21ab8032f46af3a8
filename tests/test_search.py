"""index, search and encode by their commands: what they print, and what they refuse."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from cvse_data import run
from front_door import ROOT, tiny
from PIL import Image

import mhcvse_jax
from mhcvse_jax import encode, encoders, index, main, search
from mhcvse_jax.data.feature_source import FILE, FeatureSource
from mhcvse_jax.encoders.encoder import Encoder
from mhcvse_jax.precompute.regions import Regions


class Colours(Encoder):
    """Five regions of 16 features, of a picture's mean colour."""

    name, weights_sha256, regions_width, max_regions = "colours", "0" * 64, 16, 5

    @classmethod
    def add_options(cls, options):
        pass

    def __init__(self, weights, *, shade=1):
        self.shade = shade

    def settings(self):
        return {"shade": self.shade}

    def encode(self, pictures):
        colours = [np.resize(picture.mean(axis=(0, 1)) * self.shade, (5, 16)) for picture in pictures]
        return [Regions(each.astype(np.float32), np.zeros((5, 4), np.float32)) for each in colours]


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory):
    """An index of the test pictures, and what making it printed, by a run whose encoder is known."""
    directory = tmp_path_factory.mktemp("search")
    workdir = shutil.copytree(finished[0], directory / "run", ignore=shutil.ignore_patterns("scenes", "tensorboard"))
    source = FeatureSource("colours", "0" * 64, {"shade": 2})
    (workdir / FILE).write_text(json.dumps(source._asdict()))
    encoders.ENCODERS["colours"] = Colours
    yield workdir, directory / "index", finished[0] / "scenes"
    del encoders.ENCODERS["colours"]


@pytest.fixture(scope="module")
def found(made):
    workdir, out, data = made
    arguments = ("--workdir", workdir, "--data", data, "--split", "test", "--out", out)
    assert index.main([str(each) for each in arguments]) == 0
    return out


def refused(module, capsys, *arguments):
    """The one line that a command leaves with."""
    code, _, errors = run(module, capsys, *arguments)
    assert (code, errors.count("\n")) == (2, 1), errors
    return errors


def test_queries_are_answered(found, capsys):
    code, printed, errors = run(search, capsys, found, "a red circle", "a wibbly blue square", "-k", 3)
    assert (code, errors) == (0, "")
    first, second = printed.strip().split("\n\n")
    assert first.splitlines()[0] == "a red circle"
    assert [line.split()[0] for line in first.splitlines()[1:]] == ["1", "2", "3"]
    assert second.splitlines()[1].strip() == "not in the vocabulary: wibbly"
    (hits,) = mhcvse_jax.Index.open(found).search(["a red circle"], 3)
    assert all(f"{hit.score:.3f}" in line for hit, line in zip(hits, first.splitlines()[1:], strict=True))
    assert all(Image.open(hit.picture.file).size == (48, 48) for hit in hits)


WITHOUT_JAX = (
    sys.executable,
    "-c",
    "import sys; sys.modules['jax'] = None; from mhcvse_jax.__main__ import main; main()",
)


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("evaluate --workdir RUN --split dev", "testing   mhcvse of RUN on dev"),
        ("encode --workdir RUN --out RUN/x.npz", "reading   RUN"),
        ("index --workdir RUN --out RUN/index", "reading   RUN"),
        ("serve INDEX --port 0", "reading   INDEX"),
    ],
)
def test_the_first_line_waits_for_no_jax(found, made, line, first):
    line, first = (text.replace("RUN", str(made[0])).replace("INDEX", str(found)) for text in (line, first))
    done = subprocess.run([*WITHOUT_JAX, *line.split()], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, f"{first}\n")
    assert "import of jax halted" in done.stderr


def test_who_waits_at_a_terminal_is_told_what_is_searched(found, made):
    reader, terminal = os.openpty()
    command = [*WITHOUT_JAX, "search", str(found), "a red circle"]
    with os.fdopen(reader, "rb") as shown, subprocess.Popen(command, cwd=ROOT, stderr=terminal) as searching:
        os.close(terminal)
        assert shown.readline().decode() == f"searching 20 pictures with mhcvse of {made[0].resolve()}\r\n"
        searching.kill()


def test_a_search_by_text_needs_no_optimizer_and_no_pictures(found):
    asked = "import sys, mhcvse_jax; mhcvse_jax.Index.open(sys.argv[1]).model; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked, found], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "orbax.checkpoint" in modules
    assert not modules & {"optax", "PIL", "matplotlib", "mhcvse_jax.encoders", "mhcvse_jax.scenes"}


def assert_same_hits(*lines):
    """The same pictures in the same order; scores differ in the last bits, by what a query is encoded with."""
    ids, scores = ([[hit[key] for hit in line["hits"]] for line in lines] for key in ("id", "score"))
    assert ids[0] == ids[1]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)


def test_batches_come_as_json_a_line_each(found, tmp_path, capsys, monkeypatch):
    queries = tmp_path / "queries.txt"
    queries.write_text("\ufeffa star\n\nzxqv wibble\n" + "a red circle\n" * 64)
    code, printed, _ = run(search, capsys, found, "--queries", queries, "--json", "-k", 1000)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert (code, len(lines)) == (0, 67)
    assert [len(line["hits"]) for line in lines] == [20, 0, 0, *[20] * 64]
    assert lines[1]["error"] == f"line 2 of {queries}: the query is empty; expected words"
    assert lines[2]["unknown_words"] == ["zxqv", "wibble"]
    assert_same_hits(lines[3], lines[66])  # of two batches
    assert [hit["score"] for hit in lines[0]["hits"]] == sorted(
        (hit["score"] for hit in lines[0]["hits"]), reverse=True
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a star\n")))
    code, printed, _ = run(search, capsys, found, "--queries", "-", "--json", "-k", 1000)
    assert_same_hits(json.loads(printed), lines[0])  # alone, and in a batch


def test_a_picture_finds_pictures_and_captions(found, tmp_path, capsys):
    Image.new("RGB", (31, 17), (200, 30, 40)).save(tmp_path / "red.png")
    code, printed, errors = run(search, capsys, found, "--image", tmp_path / "red.png", "-k", 2, "--json")
    assert (code, errors) == (0, "")
    model = mhcvse_jax.Index.open(found).model
    (regions,) = model.read_regions([tmp_path / "red.png"])
    assert regions.features[0, 0] == 400  # of twice the shade, as features.json says
    vector = model.encode_images(regions.features[None])
    scores, _ = mhcvse_jax.Index.open(found, model).search_vectors(vector, 2)
    np.testing.assert_allclose([hit["score"] for hit in json.loads(printed)["hits"]], scores[0], atol=1e-5)
    code, printed, _ = run(search, capsys, found, "--image", tmp_path / "red.png", "--find", "captions", "-k", 2)
    captions = mhcvse_jax.Index.open(found, model).search_captions(vector, 2)[0]
    assert captions[0].caption[:30] in printed


@pytest.mark.first_python
def test_a_pair_model_orders_the_first_answers(found, made, finished, tmp_path, capsys):
    pairs = [
        *(str(each) for each in tiny(tmp_path / "pairs", "model.name=scan", "model.num_heads=0", "num_epochs=1")),
        *(f"--config.data.dir={made[2]}", "--config.log.matches=0", "--config.data.scenes.num_train=60"),
    ]
    assert main.main(pairs) == 0
    capsys.readouterr()
    text = "a red circle"
    before, after = (
        json.loads(run(search, capsys, found, text, "--json", "-k", 20, *more)[1])["hits"]
        for more in ((), ("--rerank", tmp_path / "pairs", "--rerank_top_k", 7))
    )
    assert {hit["id"] for hit in before[:7]} == {hit["id"] for hit in after[:7]}
    assert before[7:] == after[7:]
    assert [hit["score"] for hit in after[:7]] == sorted((hit["score"] for hit in after[:7]), reverse=True)
    from mhcvse_jax.experiment.assemble import Experiment

    experiment = Experiment.of_workdir(tmp_path / "pairs")
    split = experiment.load_split(made[2], "test", (1,))
    split.captions[0] = text
    tokens, labels = experiment.language.read(split.captions)
    split = type(split)(**{**vars(split), "tokens": tokens, "caption_labels": labels})
    scores = experiment.encoder(experiment.restore_best()[0], split).scores[:, 0]
    expected = {split.image_ids[place]: scores[place] for place in range(20)}
    for hit in after[:7]:
        np.testing.assert_allclose(hit["score"], expected[hit["id"]], atol=1e-5)
    assert "expected a model that scores pairs" in refused(search, capsys, found, text, "--rerank", finished[0])
    assert "--rerank scores a picture with a text" in refused(
        search, capsys, found, text, "--find", "captions", "--rerank", tmp_path / "pairs"
    )
    assert "which scores pairs and has no vectors" in refused(
        index, capsys, "--workdir", tmp_path / "pairs", "--data", made[2], "--out", tmp_path / "index"
    )


def test_vectors_for_other_tools(made, tmp_path, capsys):
    from pyarrow import parquet

    workdir, _, data = made
    arguments = ("--workdir", workdir, "--data", data, "--split", "dev", "--out")
    for name in ("dev.npz", "dev.parquet"):
        code, printed, _ = run(encode, capsys, *arguments, tmp_path / name)
        assert code == 0
        assert f"{name}: 20 pictures, 100 texts, 16 numbers each" in printed
    with np.load(tmp_path / "dev.npz", allow_pickle=False) as file:
        arrays = dict(file)
    model = mhcvse_jax.load(workdir)
    np.testing.assert_allclose(arrays["text_vectors"], model.encode_texts(list(arrays["texts"])), atol=1e-6)
    np.testing.assert_allclose(arrays["image_vectors"], model.encode_images(np.load(data / "dev_ims.npy")), atol=1e-6)
    assert list(arrays["texts"]) == (data / "dev_caps.txt").read_text().splitlines()
    np.testing.assert_array_equal(arrays["image_of_text"], np.repeat(np.arange(20), 5))
    table = parquet.read_table(tmp_path / "dev.parquet").to_pydict()
    np.testing.assert_array_equal(
        np.array(table["vector"], np.float32), np.concatenate([arrays["image_vectors"], arrays["text_vectors"]])
    )
    assert table["kind"] == ["image"] * 20 + ["text"] * 100
    assert table["id"][20:] == [arrays["image_ids"][place] for place in arrays["image_of_text"]]
    (tmp_path / "texts.txt").write_text("a red circle\n")
    code, _, _ = run(
        encode, capsys, "--workdir", workdir, "--texts", tmp_path / "texts.txt", "--out", tmp_path / "t.npz"
    )
    with np.load(tmp_path / "t.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(file["text_vectors"], model.encode_texts(["a red circle"]), atol=1e-6)
        assert file["image_of_text"].tolist() == [-1]


def test_an_index_is_changed_by_its_command(found, made, tmp_path, capsys):
    workdir, _, data = made
    copied = shutil.copytree(found, tmp_path / "index")
    code, printed, _ = run(
        index, capsys, "--out", copied, "--append", "--data", data, "--split", "dev", "--engine", "faiss"
    )
    assert code == 0
    assert "40 pictures, 200 captions" in printed
    assert "recall@10" in printed
    assert run(search, capsys, copied, "a star", "--engine", "faiss")[0] == 0
    first = mhcvse_jax.Index.open(copied).pictures[0].id
    code, printed, _ = run(index, capsys, "--out", copied, "--remove", first)
    assert "39 pictures, 195 captions\ndropped   faiss's index" in printed
    for arguments, message in (
        (("--out", copied, "--workdir", workdir), "is an index already; expected --append"),
        (("--out", copied, "--remove", first), f"has no picture '{first}'"),
        (("--out", tmp_path / "new"), "--workdir is missing"),
        (("--out", data, "--workdir", workdir), "exists and is not empty"),
        (("--out", tmp_path / "new", "--append", "--data", data), "no such directory; expected an index"),
        (("--out", tmp_path / "new", "--workdir", tmp_path), "config.json: no such file"),
        (("--out", tmp_path / "new", "--workdir", workdir, "--data", tmp_path), "no features in it"),
        (
            ("--out", tmp_path / "new", "--workdir", workdir, "--data", data, "--split", "val"),
            "val_ims.npy: no such file",
        ),
    ):
        assert message in refused(index, capsys, *arguments)
    assert not (tmp_path / "new" / "index.json").exists()


def test_bad_queries_are_refused(found, finished, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    for arguments, message in (
        ((found,), "no query; expected TEXT"),
        ((found, " "), "the query is empty; expected words"),
        ((found, "zxqv !"), "'zxqv !' has no word that the vocabulary"),
        ((found, "dog " * 2000), "the query has 8,000 characters; expected 4,096 at most"),
        ((found, "--queries", tmp_path / "none.txt"), "none.txt: cannot be read"),
        ((found, "--queries", tmp_path / "bad.txt"), "bad.txt: not UTF-8"),
        ((found, "--image", tmp_path / "broken.png"), "broken.png: not a whole picture"),
        ((found, "--image", tmp_path / "none.png"), "none.png: cannot be read"),
        ((found, "a star", "--workdir", finished[0], "--engine", "faiss"), "has no index of faiss"),
        ((tmp_path / "none", "a star"), "no such directory; expected an index"),
        ((tmp_path, "a star"), "not a complete index (no index.json)"),
        ((found, "a star", "--rerank_top_k", 3), "--rerank_top_k needs --rerank RUN"),
    ):
        assert message in refused(search, capsys, *arguments)


def test_features_of_another_encoder_are_refused(made, tmp_path, capsys):
    workdir, _, data = made
    other = shutil.copytree(data, tmp_path / "other")
    (other / FILE).write_text(json.dumps(FeatureSource("colours", "0" * 64, {"shade": 3})._asdict()))
    arguments = ("--workdir", workdir, "--data", other, "--split", "test", "--out", tmp_path / "index")
    assert "shade 3); expected colours (weights 000000000000, shade 2)" in refused(index, capsys, *arguments)
    narrow = shutil.copytree(data, tmp_path / "narrow")
    np.save(narrow / "test_ims.npy", np.load(narrow / "test_ims.npy")[:, :, :7])
    arguments = ("--workdir", workdir, "--data", narrow, "--split", "test", "--out", tmp_path / "index")
    assert "the features of test are [pictures, 5, 7]; expected [pictures, regions, 16]" in refused(
        index, capsys, *arguments
    )


def test_without_a_checkpoint_or_an_encoder(made, finished, tmp_path, capsys):
    empty = shutil.copytree(made[0], tmp_path / "empty", ignore=shutil.ignore_patterns("checkpoints"))
    arguments = ("--workdir", empty, "--data", made[2], "--out", tmp_path / "index")
    assert "no epoch has been validated yet" in refused(index, capsys, *arguments)
    out = tmp_path / "silent"
    assert run(index, capsys, "--workdir", finished[0], "--split", "dev", "--out", out)[0] == 0
    Image.new("RGB", (3, 3)).save(tmp_path / "black.png")
    assert "does not say which encoder made its features" in refused(
        search, capsys, out, "--image", tmp_path / "black.png"
    )
