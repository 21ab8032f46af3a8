"""Pictures with any number of captions, through the commands: what is read, trained, ranked, drawn, compared."""

import json
import shutil

import cvse_data
import numpy as np
import pytest
from front_door import LIGHT
from PIL import Image, ImageFont
from uneven_data import IMAGES, options, write

from mhcvse_jax import check_data, compare, evaluate, main
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.drawing import matches
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.retrieval.pairs import ScoredSplit


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write(tmp_path_factory.mktemp("uneven") / "data")


@pytest.fixture(scope="module")
def workdir(directory, tmp_path_factory):
    path = tmp_path_factory.mktemp("uneven") / "run"
    assert main.main([*map(str, options(directory, path, *LIGHT))]) == 0
    return path


def test_recalls_count_each_pictures_own_captions(directory, workdir):
    (one, *_) = json.loads((workdir / "results.json").read_text())["results"]
    owner = [int(line.split("-")[1]) for line in (directory / "test_caption_images.txt").read_text().split()]
    assert (one["num_images"], one["num_captions"]) == (IMAGES["test"], len(owner))
    assert (workdir / "matches.png").exists()
    kept = Evaluation.load(workdir / "ranks.npz")
    np.testing.assert_array_equal(kept.image_of_caption, owner)
    for found in (ranks["fused"] for ranks in kept.ranks.values()):
        np.testing.assert_array_equal(found.i2t == 0, np.bincount(owner, minlength=14) == 0)
    halves = kept.ranks[2]["fused"]  # each has seven pictures, with all of their captions
    assert halves.t2i.max() <= 7
    queries = kept.ranks[1]["fused"].i2t[np.unique(owner)]
    assert one["i2t"]["r5"] == pytest.approx(100 * np.mean(queries <= 5), abs=1e-3)


def test_compare_reads_ranks_and_matrices(directory, workdir, tmp_path, capsys):
    matrix = tmp_path / "similarity.npy"
    code, _, errors = cvse_data.run(evaluate, capsys, "--workdir", workdir, "--similarity", matrix)
    assert code == 0, errors
    sources = (workdir, f"matrix={matrix}")
    code, out, errors = cvse_data.run(compare, capsys, *sources, "--baseline", "run", "--format", "csv")
    assert code == 0, errors
    of_run, of_matrix = (line.split(",")[1:7] for line in out.splitlines()[1:3])
    assert of_run == of_matrix
    code, out, errors = cvse_data.run(compare, capsys, "--ensemble", workdir, matrix, "--format", "csv")
    assert code == 0, errors
    assert out.splitlines()[1].split(",")[1:7] == of_run
    beside = tmp_path / "similarity.npy.json"
    facts = json.loads(beside.read_text())
    beside.write_text(json.dumps(facts | {"image_of_caption": facts["image_of_caption"][::-1]}))
    code, _, errors = cvse_data.run(compare, capsys, "--ensemble", workdir, matrix)
    assert code == 2
    assert "give the captions to other pictures" in errors


def test_check_says_how_many_captions_pictures_have(directory, capsys):
    code, out, errors = cvse_data.run(check_data, capsys, directory)
    assert code == 0, errors
    owner = (directory / "train_caption_images.txt").read_text().split()
    assert f"train_caption_images.txt: 0 to 7 captions per picture, {len(owner) / 29:.1f} on average; " in out
    assert "4 pictures without captions" in out
    (directory / "train_caption_images.txt").write_text("\n".join(owner[1:]))
    code, out, errors = cvse_data.run(check_data, capsys, directory, "--quick")
    (directory / "train_caption_images.txt").write_text("\n".join(owner))
    assert code == 2
    assert f"has {len(owner) - 1} lines; expected one per caption ({len(owner)})" in out


def test_what_cannot_be_drawn_is_known_before_anything_is_written(workdir, tmp_path, capsys):
    files = ("--output", tmp_path / "results.json", "--matches", tmp_path / "matches.png")
    code, out, errors = cvse_data.run(
        evaluate, capsys, "--workdir", workdir, *files, "--image_dir", tmp_path / "absent"
    )
    assert code == 2
    assert "absent: no such directory; expected the test pictures, " in errors
    assert "checkpoint" not in out
    assert list(tmp_path.iterdir()) == []


def test_results_are_written_before_anything_is_drawn(directory, workdir, tmp_path, monkeypatch):
    shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()  # as if it had been stopped during its test

    def draw(*_, **__):
        raise MemoryError

    monkeypatch.setattr(matches, "draw", draw)
    with pytest.raises(MemoryError):
        main.main([*map(str, options(directory, tmp_path / "run", *LIGHT))])
    assert (tmp_path / "run" / "results.json").read_bytes()


def test_a_picture_that_cannot_be_opened_is_a_grey_tile(directory, tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")  # 200 megapixels, which Pillow takes for an attack
    (tmp_path / "damaged.jpg").write_bytes(b"no picture")
    Image.new("RGB", (9, 5), "red").save(tmp_path / "sound.png")
    tiles = [
        matches._tile(tmp_path / name, ImageFont.load_default) for name in ("huge.png", "damaged.jpg", "sound.png")
    ]
    assert [tile.getpixel((75, 40)) for tile in tiles] == [(235, 235, 235), (235, 235, 235), (255, 0, 0)]
    named = np.asarray(matches._tile(tmp_path / "2654514044_a70a6e2c21.jpg", ImageFont.load_default))
    assert (named != 235).any()
    assert (named[:, -3:] == 235).all()  # the name is not cut off


def test_letters_are_drawn_in_a_font_that_has_them(monkeypatch):
    own = ImageFont.load_default(15)
    assert matches._lacking(own, "dog") == ""
    assert matches._lacking(own, "a\u0416\u4e2d ") == "\u0416\u4e2d"  # Cyrillic, Chinese; a space is no letter
    face, lacking = matches.find_face("dog\u4e2d\U0010fffe")
    assert "\U0010fffe" in lacking  # which no font has
    assert face(11).getmask("d").getbbox()
    monkeypatch.setattr(matches, "FONTS", ("no such font.ttf",))
    assert matches.find_face("dog\u4e2d\u0416\u03b4")[1] == ""  # by the extra `fonts`
    monkeypatch.setattr(matches, "PACKAGED", "no_such_package")
    assert matches.find_face("dog\u4e2d") == (ImageFont.load_default, "\u4e2d")


@pytest.mark.parametrize("has_extra", [True, False])
def test_letters_that_no_font_has_are_named_and_the_extra_only_where_it_is_missing(
    monkeypatch, tmp_path, capsys, has_extra
):
    if not has_extra:
        monkeypatch.setattr(matches, "PACKAGED", "no_such_package")
    Image.new("RGB", (9, 5), "red").save(tmp_path / "a.png")
    captions, owner = ["a dog \U0010fffe", "a cat"], np.zeros(2, np.int32)
    split = Split("test", None, captions, None, owner, None, None, ["0"], ["a.png"])  # what drawing does not read
    scores = ScoredSplit(np.array([[0.5, 0.25]], np.float32))
    matches.draw(scores, split, tmp_path, tmp_path / "drawn.png", consensus_weight=0.0, num_queries=2, seed=0)
    assert (tmp_path / "drawn.png").exists()
    line = "matches   no font on this machine has \U0010fffe: they are drawn as boxes"
    hint = "; pip install 'mhcvse_jax[fonts]' adds a font with most letters"
    assert capsys.readouterr().out == f"{line}{'' if has_extra else hint}\n"
