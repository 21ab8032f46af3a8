"""An index of a trained run: what it finds, what it knows of pictures, and how it changes."""

import json
import shutil

import numpy as np
import pytest

import mhcvse_jax
from mhcvse_jax import config
from mhcvse_jax.errors import InputError
from mhcvse_jax.indexing import build, store, trained


def test_vectors_are_those_of_the_evaluation(index, model, source):
    split = model.experiment.load_split(source.directory, "test", (1,))
    encoded = model.experiment.encoder(model.variables, split)
    np.testing.assert_allclose(index.vectors(range(20, 40)), encoded.image.fused, atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(split.captions), encoded.text.fused, atol=1e-6)


def test_search_is_the_sorted_product(index, model):
    texts = ["a red circle above a blue square", "two green things"]
    scores = model.similarity(index.vectors(range(len(index))), model.encode_texts(texts)).T
    for row, hits in zip(scores, index.search(texts, 7), strict=True):
        assert [hit.place for hit in hits] == list(np.argsort(-row, kind="stable")[:7])
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(row)[::-1][:7], atol=1e-6)


def test_records_are_those_of_the_data(index, source):
    picture = index.pictures[23]
    assert picture.id == (source.directory / "test_ids.txt").read_text().splitlines()[3]
    assert picture.captions == (source.directory / "test_caps.txt").read_text().splitlines()[15:20]
    assert picture.shows is None
    np.testing.assert_allclose(picture.boxes, np.load(source.directory / "test_boxes.npy")[3], atol=0.06)
    np.testing.assert_array_equal(index.regions(23), np.load(source.directory / "test_ims.npy")[3])


def test_pictures_say_what_their_regions_show(source, model, tmp_path):
    data = shutil.copytree(source.directory, tmp_path / "data")
    shape = np.load(data / "test_boxes.npy").shape[:2]
    np.save(data / "test_classes.npy", np.arange(shape[0] * shape[1]).reshape(shape) % 3)
    (data / "class_names.txt").write_text("circle\nsquare\nstar\n")
    (tmp_path / "index").mkdir()
    build.add(tmp_path / "index", build.new_header(model, "float32"), model, build.Source(data, ("test",), None))
    shown = mhcvse_jax.Index.open(tmp_path / "index", model).pictures[3].shows
    assert shown == [("circle", "square", "star")[(3 * shape[1] + region) % 3] for region in range(shape[1])]


def test_captions_are_found_with_their_pictures(index, model):
    text = index.pictures[31].captions[2]
    (hits,) = index.search_captions(model.encode_texts([text]), 1)
    assert hits[0].caption.lower() == text.lower()
    assert hits[0].caption in hits[0].picture.captions


def test_half_an_index_is_none(index, tmp_path):
    for path in index.directory.iterdir():
        if path.name != store.FILE:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="not a complete index"):
        mhcvse_jax.Index.open(tmp_path)
    content = json.loads((index.directory / store.FILE).read_text())
    (tmp_path / store.FILE).write_text(json.dumps(content))
    (tmp_path / "000001_images.npy").unlink()
    with pytest.raises(InputError, match=r"000001_images.npy: no such file"):
        mhcvse_jax.Index.open(tmp_path)


@pytest.fixture
def copied(index, tmp_path):
    """The index where it may be changed, and its header."""
    directory = shutil.copytree(index.directory, tmp_path / "copied")
    return directory, index.header


def ids(index):
    return [picture.id for picture in index.pictures]


def test_what_is_removed_is_found_no_more(copied, index, model):
    directory, header = copied
    gone = [ids(index)[place] for place in (3, 19, 20, 21)]
    build.remove(directory, header, gone)
    after = mhcvse_jax.Index.open(directory, model)
    kept = [place for place in range(40) if place not in (3, 19, 20, 21)]
    assert ids(after) == [ids(index)[place] for place in kept]
    np.testing.assert_array_equal(after.vectors(range(36)), index.vectors(kept))
    np.testing.assert_array_equal(after.regions(35), index.regions(39))
    text = after.pictures[30].captions[4]
    (hits,) = after.search_captions(model.encode_texts([text]), 1)
    assert hits[0].caption.lower() == text.lower()
    assert len(list(directory.iterdir())) == 1 + 2 * len(store.PART_FILES)
    with pytest.raises(InputError, match=f"has no picture '{gone[0]}'"):
        build.remove(directory, after.header, gone[:1])


def test_a_whole_part_may_go(copied, index, model):
    directory, header = copied
    assert len(build.remove(directory, header, ids(index)[:20]).parts) == 1
    after = mhcvse_jax.Index.open(directory, model)
    assert ids(after) == ids(index)[20:]
    build.remove(directory, after.header, ids(after))
    with pytest.raises(InputError, match="has no pictures"):
        mhcvse_jax.Index.open(directory, model).search(["red circle"])


def test_adding_leaves_out_what_is_there(copied, index, model, source, capsys):
    directory, header = copied
    header = build.remove(directory, header, ids(index)[:2])
    header = build.add(directory, header, model, source)
    assert "left out  18 pictures of dev" in capsys.readouterr().out
    after = mhcvse_jax.Index.open(directory, model)
    assert ids(after) == [*ids(index)[2:], *ids(index)[:2]]
    np.testing.assert_allclose(after.vectors([38, 39]), index.vectors([0, 1]), atol=1e-6)


def test_what_a_stopped_change_left_goes_with_the_next(copied, index):
    directory, header = copied
    (directory / "000007_images.npy").write_bytes(b"half")
    (directory / ".000007_captions.npy.partial").write_bytes(b"half")
    (directory / "notes.txt").write_text("mine")
    assert len(mhcvse_jax.Index.open(directory)) == 40
    build.remove(directory, header, ids(index)[:1])
    assert not [path for path in directory.iterdir() if "000007" in path.name]
    assert (directory / "notes.txt").exists()


def test_a_reader_sees_the_index_before_or_after_a_change(copied, index, monkeypatch):
    directory, header = copied
    read_header, seen = store.read_header, []

    def changed_in_between(path):
        found = read_header(path)
        if not seen:
            seen.append(build.remove(directory, header, ids(index)[:1]))
        return found

    monkeypatch.setattr(store, "read_header", changed_in_between)
    assert ids(mhcvse_jax.Index.open(directory)) == ids(index)[1:]


def test_half_precision_finds_the_same(index, model, source, tmp_path):
    build.add(tmp_path, build.new_header(model, "float16"), model, source)
    halved = mhcvse_jax.Index.open(tmp_path, model)
    assert np.load(tmp_path / "000000_images.npy").dtype == np.float16
    np.testing.assert_allclose(halved.vectors(range(40)), index.vectors(range(40)), atol=1e-3)
    (whole,), (half,) = (each.search(["a red square and a blue star"], 3) for each in (index, halved))
    np.testing.assert_allclose([hit.score for hit in half], [hit.score for hit in whole], atol=2e-3)


def test_another_model_is_refused(index, model, finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run", ignore=shutil.ignore_patterns("scenes", "tensorboard"))
    vocabulary = json.loads((run / "vocabulary.json").read_text())
    words = vocabulary["idx2word"]
    words["4"], words["5"] = words["5"], words["4"]
    vocabulary["word2idx"] = {word: int(number) for number, word in words.items()}
    (run / "vocabulary.json").write_text(json.dumps(vocabulary))
    with pytest.raises(InputError, match="was made by another model"):
        mhcvse_jax.Index.open(index.directory, trained.load(run))
    values = json.loads((run / "config.json").read_text())
    values["model"]["embedding_dim"] *= 2
    (run / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="not a checkpoint of this configuration's model"):
        trained.load(run)
    with pytest.raises(InputError, match="was made by another model"):  # known before the model runs
        mhcvse_jax.Index.open_for(index.directory, run, None)
    assert trained.load(finished[0]).fingerprint == model.fingerprint


def test_a_key_that_a_later_version_adds_makes_no_other_model(model, finished, monkeypatch):
    load = config.load

    def load_with_another_key(path):
        values = load(path).unlock()
        values.model.added_later = 0.0
        return values.lock()

    monkeypatch.setattr(config, "load", load_with_another_key)
    monkeypatch.setattr(config, "check", lambda values: None)
    later = trained.load(finished[0])
    assert later.experiment.config.model.added_later == 0.0
    assert later.fingerprint == model.fingerprint


def test_data_that_was_exchanged_is_noticed(index, source, tmp_path, model):
    data = shutil.copytree(source.directory, tmp_path / "data")
    build.add(tmp_path, build.new_header(model, "float32"), model, build.Source(data, ("test",), None))
    lines = (data / "test_ids.txt").read_text().splitlines()
    (data / "test_ids.txt").write_text("\n".join([lines[1], lines[0], *lines[2:]]))
    opened = mhcvse_jax.Index.open(tmp_path, model)
    np.testing.assert_array_equal(opened.regions(2), np.load(data / "test_ims.npy")[2])
    with pytest.raises(InputError, match=r"picture 0 of test is not .* any more"):
        opened.regions(0)


def test_pictures_without_captions_are_found(model, source, tmp_path):
    data = shutil.copytree(source.directory, tmp_path / "data")
    for name in ("test_caps.txt", "test_caption_images.txt"):
        (data / name).write_text("")
    build.add(tmp_path, build.new_header(model, "float32"), model, build.Source(data, ("test",), None))
    opened = mhcvse_jax.Index.open(tmp_path, model)
    assert len(opened.search(["a green triangle"], 100)[0]) == 20
    with pytest.raises(InputError, match="has no captions"):
        opened.search_captions(opened.vectors([0]))


@pytest.mark.parametrize("factory", ["HNSW8", "IVF4,Flat"])
def test_faiss_finds_what_the_exact_search_finds(copied, model, capfd, factory):
    directory, header = copied
    search = "nprobe=4" if "IVF" in factory else "efSearch=64"
    build.add_faiss(directory, header, factory, search)
    said = capfd.readouterr()
    assert "recall@10 1.000 against the exact search, over 200 captions" in said.out
    assert not said.err  # faiss warns of so few vectors
    texts = ["a red circle above a blue square", "two green things"]
    exact, found = (
        mhcvse_jax.Index.open(directory, model, engine=engine).search(texts, 5) for engine in ("exact", "faiss")
    )
    assert [[hit.place for hit in hits] for hits in found] == [[hit.place for hit in hits] for hits in exact]
    after = build.remove(directory, store.read_header(directory), [exact[0][0].picture.id])
    assert after.faiss is None
    assert not list(directory.glob("*.faiss"))
    with pytest.raises(InputError, match="has no index of faiss; expected `mhcvse index"):
        mhcvse_jax.Index.open(directory, model, engine="faiss")


def test_what_faiss_cannot_make_is_said(copied):
    directory, header = copied
    for factory, search, message in (("IVF4000,Flat", "", "cannot make IVF4000"), ("Flat", "efSearch=3", "knows no")):
        with pytest.raises(InputError, match=message):
            build.add_faiss(directory, header, factory, search)
    assert not list(directory.glob("*.faiss"))
