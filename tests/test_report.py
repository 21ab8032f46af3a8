"""The report of a run: one file, whole, whatever the run has or lacks."""

import json
import re
import shutil

import front_door
import numpy as np
import pytest

import mhcvse_jax
from mhcvse_jax import report
from mhcvse_jax.data.text import tokenize
from mhcvse_jax.reporting import left_out, observed

LIMIT = 5_000_000


def written(capsys, *arguments, code=0):
    """Runs the command; returns the page, of which every address is in it, and what was printed."""
    assert report.main([str(argument) for argument in arguments]) == code
    printed = capsys.readouterr()
    if code:
        return None, printed.err
    page = re.search("open (.*)", printed.out)[1]
    with open(page, encoding="utf-8") as file:
        text = file.read()
    assert len(text) < LIMIT
    assert "<script" not in text
    assert not re.findall(r'(?:src|href|url\()="?(?!#|data:|\))[^"> ]+', text.replace("url(#", "#"))
    return text, printed.out


@pytest.fixture
def run(finished, tmp_path):
    """Returns a copy of the finished run whose data it may change."""
    return shutil.copytree(finished[0], tmp_path / "run")


def test_a_report_has_all_of_a_run(run, capsys):
    text, _ = written(capsys, run)
    ids = re.findall(r'<section id="(\w+)">', text)
    assert ids == ["recall", "run", "curves", "matches", "attention", "hubs", "concepts"]
    fused = json.loads((run / "results.json").read_text())["results"][0]
    assert f"{fused['rsum']:.1f}" in text
    assert "model.embedding_dim" in text
    assert len(re.findall("<b>head ", text)) == 2 * len(re.findall("What the similarity comes from</h4>", text)) > 0
    assert text.count("data:image/jpeg;base64,") == len(re.findall("<symbol ", text)) > 5
    assert set(re.findall(r'href="#(picture\d+)"', text)) == set(re.findall(r'symbol id="(\w+)"', text))
    assert "no picture" not in text


def test_a_run_that_has_not_ended_is_tried_on_dev(run, capsys):
    (run / "results.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(lines[: len(lines) // 2]) + '\n{"step": 9')
    text, _ = written(capsys, run, "--image_dir", run / "nowhere", "--queries", 1)
    assert "has not ended" in text
    assert "dev: 20 pictures, 100 captions" in text
    missing = re.search(r"(\d+) of the (\d+) pictures shown here were not found", text)
    assert missing[1] == missing[2]


def test_a_run_without_a_checkpoint_has_its_curves(run, capsys):
    for lost in ("checkpoints", "results.json", "ranks.npz"):
        shutil.rmtree(run / lost) if (run / lost).is_dir() else (run / lost).unlink()
    text, _ = written(capsys, run)
    assert re.findall(r'<section id="(\w+)">', text) == ["recall", "run", "curves"]
    assert "Matches, attention, hubs and concepts are left out: " in text
    assert "no epoch has been validated yet" in text


def test_captions_that_are_long_or_markup_or_run_from_right_to_left(run, capsys):
    path = run / "scenes" / "test_caps.txt"
    captions = path.read_text().splitlines()
    captions[0::3] = ['<script>alert("1")</script>' for _ in captions[0::3]]
    captions[1::3] = ["שני כלבים משחקים בשלג" for _ in captions[1::3]]
    captions[2::3] = ["word " * 400 for _ in captions[2::3]]
    path.write_text("\n".join(captions) + "\n")
    text, _ = written(capsys, run, "--queries", 2)
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in text
    assert 'dir="auto">שני' in text
    assert "… (1,999 letters)" in text


def test_what_the_regions_show_is_said(run, capsys):
    np.save(run / "scenes" / "test_classes.npy", np.arange(100, dtype=np.int32).reshape(20, 5) % 3)
    (run / "scenes" / "class_names.txt").write_text("lamp\n<b>cup</b>\ndog\n")
    text, _ = written(capsys, run, "--queries", 2)
    said = re.findall(r">in: ([^<]*)</span></figcaption>", text)
    assert set(said) == {"lamp", "&lt;b&gt;cup&lt;/b&gt;", "dog"}


def test_pictures_with_any_number_of_captions_and_no_boxes(run, capsys):
    scenes = run / "scenes"
    owners = np.repeat(np.arange(20), [0, 1, 9, *[5] * 17])[:95]
    ids = (scenes / "test_ids.txt").read_text().split()
    (scenes / "test_caption_images.txt").write_text("".join(f"{ids[owner]}\n" for owner in owners))
    captions = (scenes / "test_caps.txt").read_text().splitlines()
    (scenes / "test_caps.txt").write_text("\n".join(captions[: len(owners)]) + "\n")
    (scenes / "test_boxes.npy").unlink()
    (run / "ranks.npz").unlink()
    text, _ = written(capsys, run, "--queries", 30, "--data_dir", scenes)
    assert "test: 20 pictures, 95 captions" in text
    assert 'class="bars"' in text
    assert 'class="veil"' not in text


def test_several_runs_are_put_side_by_side(run, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["seed"] = 3
    (other / "config.json").write_text(json.dumps(config))
    text, _ = written(capsys, run, "--compare", f"again={other}", "--output", tmp_path / "both.html")
    assert "again</th>" in text
    assert "<code>seed</code>" in text
    assert "Differences are to run, each with its 95% interval" in text
    assert text.count("<b>again</b>: ") == text.count("<b>run</b>: ") > 0
    assert "weight, fusion" in text
    _, error = written(capsys, run, "--compare", other, run, code=2)
    assert "both named run" in error


@pytest.mark.once
def test_a_model_of_pairs_has_no_concepts(run, tmp_path, capsys):
    workdir = tmp_path / "scan"
    values = ("model.name=scan", "model.num_heads=0", f"data.dir={run / 'scenes'}", "num_epochs=1", "log.report=True")
    done = front_door.run("main", *front_door.tiny(workdir, *values))
    assert done.stdout.endswith(f"open {workdir / 'report.html'}\n"), done.stderr
    assert 'id="matches"' in (workdir / "report.html").read_text(encoding="utf-8")
    text, _ = written(capsys, workdir, "--pictures", 11, "--queries", 1)
    assert "of the first 11 pictures of test alone" in text
    assert "test: 20 pictures, 100 captions" in text
    assert 'id="concepts"' not in text
    assert "all heads together" in text


def test_what_a_pair_loses_without_a_word_or_region_is_what_it_loses_when_tried_again(run):
    tested = observed.observe("run", run, observed.Options()).tested
    pairs = [(3, 7), (58, 11)]
    found = left_out.losses(tested, pairs)
    model, split = mhcvse_jax.load(run), tested.split
    for (caption, image), losses in zip(pairs, found, strict=True):
        words = tokenize(split.captions[caption])
        texts = model.encode_texts(
            [split.captions[caption], *(" ".join(np.delete(words, i)) for i in range(len(words)))]
        )
        regions = split.regions.read(np.array([image]))[0]
        without = [np.insert(np.delete(regions, i, axis=0), len(regions) - 1, 0.0, axis=0) for i in range(len(regions))]
        images = model.encode_images(np.stack([regions, *without]), np.array([5, 4, 4, 4, 4, 4]))
        whole = images[0] @ texts[0]
        np.testing.assert_allclose(losses.words, [0, *(whole - texts[1:] @ images[0]), 0], atol=2e-6)
        np.testing.assert_allclose(losses.regions, whole - images[1:] @ texts[0], atol=2e-6)
        assert np.abs(losses.words).max() > 1e-3


def test_a_card_says_what_a_result_was_made_from(run, capsys):
    content = json.loads((run / "results.json").read_text())
    assert report.main([str(run), "--card"]) == 0
    printed = capsys.readouterr().out
    checksum = content["data"]["splits"]["train"]["captions_sha256"]
    for said in (
        "run\n  model     mhcvse\n",
        f"captions {checksum[:12]}",
        content["git_revision"].removesuffix("-dirty"),
    ):
        assert said in printed
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nowhere",), "nowhere/config.json: no such file"),
        (("RUN", "--split", "train_of_others"), "train_of_others_ims.npy: no such file"),
        (("RUN", "--output", "nowhere/page.html"), "no such directory"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(run, capsys, arguments, error):
    arguments = [run if argument == "RUN" else argument for argument in arguments]
    _, said = written(capsys, *arguments, code=2)
    assert error in said
    assert said.count("\n") == 1
