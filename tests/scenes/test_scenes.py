"""The built-in data set: what its captions say is what its pictures show."""

import dataclasses
import itertools
import json
import random
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageChops

from mhcvse_jax.errors import InputError
from mhcvse_jax.scenes import build
from mhcvse_jax.scenes.describe import describe, is_true
from mhcvse_jax.scenes.draw import draw
from mhcvse_jax.scenes.featurise import featurise, propose_boxes
from mhcvse_jax.scenes.scene import COLOURS, SPLITS, Look, Scene, Thing, relations, sample_pair

ARGUMENTS = {
    "num_train": 23,
    "num_dev": 7,
    "num_test": 31,
    "num_regions": 11,
    "feature_dim": 37,
    "image_size": 64,
    "twin_share": 0.5,
    "seed": 3,
}

# An independent reading of captions: words and phrases to what they mean.
WORDS = {
    "small": "small little tiny",
    "large": "large big huge",
    "plain": "plain solid",
    "striped": "striped stripy stripes",
    "dotted": "dotted spotted dots",
    "checked": "checked chequered checks",
    "purple": "purple violet",
    **{colour: colour for colour in COLOURS if colour != "purple"},
    "circle": "circle disc",
    "square": "square box",
    "triangle": "triangle",
    "star": "star",
    "cross": "cross plus",
    "ring": "ring hoop",
    "heart": "heart",
    "moon": "moon crescent",
    None: "shape object figure",
}
MEANING = {word: meaning for meaning, words in WORDS.items() for word in words.split()}
NOUNS = "|".join(word for word in MEANING if MEANING[word] in (*list(WORDS)[-9:],))
ADJECTIVES = "|".join(word for word in MEANING if word not in NOUNS.split("|"))
NOUN_PHRASE = re.compile(rf"\ban? ((?:(?:{ADJECTIVES}) )*(?:{NOUNS})\b(?: with \w+)?)")
# Phrases that stand before the second thing: what they say, and whether it is said from second to first.
PHRASES = {
    ("left of", False): "left of|on the left of|to the left of",
    ("left of", True): "right of|on the right of|to the right of",
    ("above", False): "above|over",
    ("above", True): "below|under|beneath",
    ("inside", False): "inside|within|is enclosed by|is surrounded by|is encircled by|fills",
    ("inside", True): "encloses|surrounds|is holding|contains",
    ("covers", False): "in front of|partly covers|partly hides|is covering a part of|is hiding a part of",
    ("covers", True): "behind|is partly covered by|is partly hidden by",
    ("touches", False): "touches|is touching|overlaps with|meets",
    ("next to", False): "next to|beside|close to",
}
PLACE = re.compile(
    r"(?:on|in|at|near) the (upper left|upper right|lower left|lower right|top left|top right|bottom left|"
    r"bottom right|upper|lower|left|right|top|bottom|middle|centre)( corner| side| edge| part)?\b(?! of @)"
)


def read(text):
    """The facts that a reader takes from a caption: (predicate, things), a thing a set of words."""
    assert text[0].isupper()
    assert text[-1] == "."
    text = text[:-1].lower()
    facts, things = [], []

    def take(match):
        things.append(frozenset(filter(None, (MEANING.get(word) for word in match[1].split()))))
        return f"@{len(things) - 1}"

    if ground := re.search(r" on a (\w+) (?:back)?ground$", text):
        facts.append((f"on {ground[1]}", ()))
        text = text[: ground.start()]
    text = NOUN_PHRASE.sub(take, text)
    if count := re.search("among the (two|three|four) ", text):
        facts.append((f"{('two', 'three', 'four').index(count[1]) + 2} things", ()))
    fronted = not re.search(r"^(there is )?@0", text)
    subject = things[-1] if fronted else things[0]
    for (name, backwards), phrases in PHRASES.items():
        for match in re.finditer(rf"(?<!picture )(?<!image )(?<!drawing )\b(?:{phrases}) @(\d)", text):
            pair = (subject, things[int(match[1])])
            facts.append((name, pair[::-1] if backwards else pair))
    if len(things) == 1 and (place := PLACE.search(text)):
        row = {"upper": "top", "lower": "bottom", "centre": "middle"}
        facts.append((" ".join(row.get(word, word) for word in place[1].split()), (subject,)))
    elif not any(there for _, there in facts):
        facts.append(("there", tuple(things)))
    return facts


def stated(caption):
    return [(f.predicate, tuple(frozenset(filter(None, what)) for what in f.things)) for f in caption.facts]


def seen_in_picture(scene, size=128):
    """Centre, in [0, 1], and area in pixels of what each thing adds to the picture."""
    whole, found = draw(scene, size), []
    for k in range(len(scene.things)):
        rest = dataclasses.replace(scene, things=scene.things[:k] + scene.things[k + 1 :])
        visible = np.asarray(ImageChops.difference(whole, draw(rest, size))).max(2) > 8
        rows, columns = np.nonzero(visible)
        centre = (np.ptp(columns) / 2 + columns.min()) / size, (np.ptp(rows) / 2 + rows.min()) / size
        found.append((*centre, visible.sum()))
    return found


def oracle(fact, scene, loosely=False):
    """Whether a fact is true, or might be called so, by loops over the things and plain geometry."""
    predicate, things = fact
    edge, middle, slope, near = (0.5, 0.2, 0, 2) if loosely else (0.33, 0.11, 1.4, 0.11)
    if predicate == f"on {scene.background}" or predicate == f"{len(scene.things)} things":
        return True
    for chosen in itertools.permutations(range(len(scene.things)), len(things)):
        seen = [scene.things[k] for k in chosen]
        if not things or not all(what <= set(thing.look) for what, thing in zip(things, seen, strict=True)):
            continue
        a, b = seen[0], seen[-1]
        distance = np.hypot(a.x - b.x, a.y - b.y)
        where = {"left": a.x < edge, "right": a.x > 1 - edge, "top": a.y < edge, "bottom": a.y > 1 - edge}
        truths = {
            "there": True,
            "middle": abs(a.x - 0.5) < middle and abs(a.y - 0.5) < middle,
            "left of": distance > 0.02 and a.x < b.x and abs(a.x - b.x) > slope * abs(a.y - b.y),
            "above": distance > 0.02 and a.y < b.y and abs(a.y - b.y) > slope * abs(a.x - b.x),
            "inside": b.look.shape == "ring" and distance < 0.02,
            "touches": 0.02 < distance < a.radius + b.radius,
            "next to": a.radius + b.radius < distance < a.radius + b.radius + near,
            "covers": 0.02 < distance < a.radius + b.radius and chosen[0] > chosen[-1],
        }
        if truths[predicate] if predicate in truths else all(where[word] for word in predicate.split()):
            return True
    return False


def pictures(split="train", pairs=150, twin_share=0.5):
    """Triples of a scene, its twin or None, and its captions."""
    for k in range(pairs):
        pair = sample_pair(3, split, k, twin_share)
        for scene, other in ((pair.first, pair.second), (pair.second, pair.first)):
            twin = other if pair.twins else None
            yield scene, twin, describe(scene, random.Random(k), twin)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "scenes"
    assert build.write_scenes(path, **ARGUMENTS)
    return path


def test_a_reader_takes_from_captions_the_facts_behind_them():
    read_predicates = set()
    for _, _, captions in pictures():
        for caption in captions:
            assert Counter(read(caption.text)) == Counter(stated(caption)), caption.text
            read_predicates |= {predicate for predicate, _ in read(caption.text)}
    assert {name for name, _ in PHRASES} | {"there", "middle", "top left", "3 things"} <= read_predicates


def test_captions_are_true_and_five_a_picture():
    for scene, _, captions in pictures():
        assert len({caption.text for caption in captions}) == 5
        for caption in captions:
            assert is_true(caption, scene)
            assert is_true(caption, scene, loosely=True)
            assert all(oracle(fact, scene) for fact in read(caption.text)), caption.text


def test_things_are_visible_where_the_scene_has_them():
    for scene, _, _ in pictures(pairs=20):
        seen = seen_in_picture(scene)
        for thing, (x, y, area) in zip(scene.things, seen, strict=True):
            assert abs(x - thing.x) < 0.075
            assert abs(y - thing.y) < 0.075
            assert area > 0.35 * (128 * thing.radius) ** 2
        for name, i, j in relations(scene):
            if name in ("left of", "above"):
                axis = ("left of", "above").index(name)
                assert seen[i][axis] < seen[j][axis] - 0.1


def test_what_covers_is_in_front():
    count = 0
    for scene, _, _ in pictures():
        for _, i, _ in (relation for relation in relations(scene) if relation.name == "covers"):
            whole, alone, empty = (
                np.asarray(draw(dataclasses.replace(scene, things=things), 128), int)
                for things in (scene.things, (scene.things[i],), ())
            )
            front = np.abs(alone - empty).max(2) > 60
            assert (whole == alone)[front].mean() > 0.9
            count += 1
    assert count > 30


def looks_of(scene):
    """What twins have in common and splits have not."""
    return tuple(sorted(thing.look for thing in scene.things))


def test_twins_differ_in_relations_alone_and_their_captions_tell():
    count = 0
    for scene, twin, captions in pictures():
        if twin is None:
            continue
        count += 1
        assert looks_of(scene) == looks_of(twin)
        assert scene.background == twin.background
        telling = [c for c in captions if not is_true(c, twin, loosely=True)]
        for caption in telling:
            assert not all(oracle(fact, twin, loosely=True) for fact in read(caption.text)), caption.text
        relational = {name for name, _ in PHRASES}
        assert sum(any(f.predicate in relational for f in c.facts) for c in telling) >= 2
        assert np.abs(np.asarray(draw(scene, 64), float) - np.asarray(draw(twin, 64), float)).max() > 50
    assert 110 <= count <= 190  # of 300, half


def test_what_clearly_holds_holds_loosely_and_excludes_its_converse():
    for scene, _, _ in pictures():
        clearly, loosely = relations(scene), relations(scene, loosely=True)
        assert clearly <= loosely
        for name, i, j in loosely:
            assert ((name, j, i) in loosely) == (name in ("next to", "touches"))
        # Near or far is a matter of opinion: it tells no twins apart.
        for i, j in itertools.permutations(range(len(scene.things)), 2):
            names = {name for name, *pair in loosely if set(pair) == {i, j}}
            assert names & {"next to", "touches", "inside"}


def test_splits_share_no_objects_at_the_size_of_the_demo():
    sizes = dict(zip(SPLITS, (3000, 200, 500), strict=True))
    looks = {
        split: {looks_of(scene) for k in range(size // 2) for scene in sample_pair(0, split, k, 0.2)[:2]}
        for split, size in sizes.items()
    }
    assert len(looks["test"]) > 430  # nine in ten, and twins share theirs
    for one, other in itertools.combinations(SPLITS, 2):
        assert not looks[one] & looks[other]


def test_layout(directory):
    manifest = json.loads((directory / "scenes.json").read_text())
    assert manifest["arguments"] == ARGUMENTS
    ids, names = [], []
    for split in SPLITS:
        size = ARGUMENTS[f"num_{split}"]
        features = np.load(directory / f"{split}_ims.npy")
        assert features.shape == (size, 11, 37)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        boxes = np.load(directory / f"{split}_boxes.npy")
        assert boxes.shape == (size, 11, 4)
        assert (boxes >= 0).all()
        assert (boxes <= 64).all()
        assert (boxes[..., :2] < boxes[..., 2:]).all()
        assert len((directory / f"{split}_caps.txt").read_text().splitlines()) == 5 * size
        ids += (directory / f"{split}_ids.txt").read_text().split()
        names += (directory / f"{split}_image_names.txt").read_text().split()
        twins = np.load(directory / f"{split}_twins.npz")
        twin, tells_apart = twins["twin"], twins["tells_apart"].reshape(size, 5)
        assert (twin.dtype, tells_apart.dtype) == (np.int64, bool)
        paired = np.flatnonzero(twin >= 0)
        np.testing.assert_array_equal(twin[twin[paired]], paired)
        assert (tells_apart[paired].sum(1) >= 2).all()
        assert not tells_apart[twin < 0].any()
    assert len(set(ids)) == len(ids) == 23 + 7 + 31
    assert sorted(names) == sorted(path.name for path in (directory / "images").iterdir())
    with Image.open(directory / "images" / "test_00017.png") as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")


def test_files_hold_what_the_scenes_say(directory):
    captions = (directory / "test_caps.txt").read_text().splitlines()
    features, boxes = (np.load(directory / f"test_{kind}.npy") for kind in ("ims", "boxes"))
    twins = np.load(directory / "test_twins.npz")
    for number in range(31):
        pair = sample_pair(3, "test", number // 2, 0.5)
        scene, other = (pair.first, pair.second) if number % 2 == 0 else (pair.second, pair.first)
        with Image.open(directory / "images" / f"test_{number:05d}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), np.asarray(draw(scene, 64)))
            np.testing.assert_array_equal(features[number], featurise(image, boxes[number], 37))
        for k in range(5 * number, 5 * number + 5):
            facts = read(captions[k])
            assert all(oracle(fact, scene) for fact in facts)
            might_be_the_twins = all(oracle(fact, other, loosely=True) for fact in facts)
            assert twins["tells_apart"][k] == (twins["twin"][number] >= 0 and not might_be_the_twins)


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(directory, tmp_path):
    build.write_scenes(tmp_path / "again", **ARGUMENTS)
    build.write_scenes(tmp_path / "other", **ARGUMENTS | {"seed": 4})
    files = sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*.*"))
    for file in files:
        assert (directory / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    for file in ("test_caps.txt", "test_ims.npy", "images/test_00000.png"):
        assert (directory / file).read_bytes() != (tmp_path / "other" / file).read_bytes(), file


def test_a_larger_split_begins_with_the_smaller(directory, tmp_path):
    larger = tmp_path / "larger"
    build.write_scenes(larger, **ARGUMENTS | {"num_train": 2, "num_test": 34})
    for kind in ("ims", "boxes"):
        small, large = (np.load(path / f"test_{kind}.npy") for path in (directory, larger))
        np.testing.assert_array_equal(large[:31], small)
    for kind in ("caps", "ids", "image_names"):
        small, large = ((path / f"test_{kind}.txt").read_text() for path in (directory, larger))
        assert large.startswith(small)
    small, large = (np.load(path / "test_twins.npz") for path in (directory, larger))
    np.testing.assert_array_equal(large["twin"][:30], small["twin"][:30])
    np.testing.assert_array_equal(large["tells_apart"][:150], small["tells_apart"][:150])
    for path in (directory / "images").glob("test_*"):
        assert path.read_bytes() == (larger / "images" / path.name).read_bytes()


def test_features_come_from_pixels_and_boxes_alone():
    def features(scene, boxes):
        return featurise(draw(scene, 96), boxes, 37)

    things = (
        Thing(Look("large", "plain", "red", "circle"), 0.25, 0.25, 0.17, 1.0),
        Thing(Look("large", "plain", "blue", "square"), 0.75, 0.75, 0.17, 1.0),
    )
    scene = Scene(things, "white")
    boxes = np.array([(5, 5, 43, 43), (53, 53, 91, 91)], np.float32)
    expected = features(scene, boxes)

    # The size's name is not drawn: other words for the same pixels change nothing.
    renamed = dataclasses.replace(things[0], look=things[0].look._replace(size="small"))
    np.testing.assert_array_equal(features(Scene((renamed, things[1]), "white"), boxes), expected)
    for change in ({"colour": "green"}, {"pattern": "striped"}, {"shape": "star"}):
        changed = dataclasses.replace(things[0], look=things[0].look._replace(**change))
        difference = np.abs(features(Scene((changed, things[1]), "white"), boxes) - expected).max(1)
        assert difference[0] > 0.1
        assert difference[1] == 0
    # A region's features know its place, and do not depend on the other regions.
    empty = Scene((), "white")
    assert np.abs(np.diff(features(empty, boxes), axis=0)).max() > 0.1
    np.testing.assert_allclose(features(scene, boxes[::-1]), expected[::-1], atol=1e-5)


def test_colours_can_be_read_from_features_of_unseen_pictures():
    def regions(split, pairs):
        rows, colours = [], []
        for scene in (s for k in range(pairs) for s in sample_pair(3, split, k, 0)[:2]):
            boxes = np.array([(t.x - t.radius, t.y - t.radius, t.x + t.radius, t.y + t.radius) for t in scene.things])
            rows.append(featurise(draw(scene, 64), np.float32(64) * boxes.astype(np.float32), 128))
            colours += [COLOURS.index(thing.look.colour) for thing in scene.things]
        return np.pad(np.concatenate(rows), ((0, 0), (0, 1)), constant_values=1), np.array(colours)

    features, colours = regions("train", 160)
    weights = np.linalg.lstsq(features, np.eye(8)[colours], rcond=None)[0]
    features, colours = regions("test", 60)
    assert ((features @ weights).argmax(1) == colours).mean() > 0.8


def test_boxes_find_most_things_and_keep_no_order():
    found, first = [], []
    for number, (scene, _, _) in enumerate(pictures(pairs=100)):
        boxes = propose_boxes(scene, random.Random(number), 12, 1)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        for thing in scene.things:
            distance = np.abs(centres - (thing.x, thing.y)).max(1)
            found.append(distance.min() < 0.3 * thing.radius)
            first.append(distance.argmin())
    assert 0.93 < np.mean(found) < 1
    assert np.bincount(first, minlength=12).min() > 0.5 * len(first) / 12


def test_a_finished_directory_is_reused_and_any_other_refused(directory, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    assert not build.write_scenes(directory, **ARGUMENTS)
    assert before == {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    with pytest.raises(InputError, match=r"scenes: holds scenes made with seed=3, expected seed=5"):
        build.write_scenes(directory, **ARGUMENTS | {"seed": 5})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds no scenes\.json"):
        build.write_scenes(tmp_path, **ARGUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert before == {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


@pytest.mark.parametrize(
    "wrong",
    [{"num_dev": 0}, {"num_regions": 3}, {"feature_dim": 0}, {"image_size": 31}, {"twin_share": 1.1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_arguments_out_of_range_are_named(tmp_path, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        build.write_scenes(tmp_path / "new", **ARGUMENTS | wrong)
    assert not any(tmp_path.iterdir())


def test_an_interrupted_build_leaves_nothing(tmp_path):
    written = []

    def picture_done():
        written.append(len(list(tmp_path.glob("*/images/*"))))
        if len(written) == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.write_scenes(tmp_path / "new", **ARGUMENTS, picture_done=picture_done)
    assert written == list(range(1, 26))
    assert not any(tmp_path.iterdir())


def test_command(tmp_path, capsys):
    arguments = [str(tmp_path / "new"), "--train", "3", "--dev", "2", "--test", "2", "--image-size", "32"]
    assert build.main(arguments) == 0
    assert (tmp_path / "new" / "images" / "train_00002.png").exists()
    assert build.main(arguments) == 0
    assert "there already" in capsys.readouterr().out
    assert build.main([*arguments, "--seed", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
