"""ECCV Caption, CxC and PMRP: by hand, and by the package's own functions on ranks that it is given whole."""

import json

import numpy as np
import pytest

eccv_caption = pytest.importorskip("eccv_caption", reason="extra [metrics]")

from mhcvse_jax.data import coco_ids  # noqa: E402
from mhcvse_jax.errors import InputError  # noqa: E402
from mhcvse_jax.evaluation import coco  # noqa: E402
from mhcvse_jax.retrieval import one_way  # noqa: E402


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package, with few pictures, so that random ranks take no time; 3 captions each."""
    directory = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    images, captions = [7, 5, 31, 19, 2, 23, 11], list(range(100, 121))
    own = {image: captions[3 * i : 3 * i + 3] for i, image in enumerate(images)}
    more = {image: [*own[image], *map(int, rng.choice(captions, 4))] for image in images[1:6]}
    back = {c: [image for image in more if c in more[image]] or [7] for c in captions}
    found = eccv_caption.Metrics()
    for name, i2t, t2i in (
        ("coco", own, {c: [image] for image in own for c in own[image]}),
        ("cxc", more, back),
        ("eccv", dict(list(more.items())[:3]), dict(list(back.items())[4:13])),
        ("pm", more, back),
    ):
        paths = directory / f"{name}_image_to_caption.json", directory / f"{name}_caption_to_image.json"
        for path, truth in zip(paths, (i2t, t2i), strict=True):
            path.write_text(json.dumps({key: list(dict.fromkeys(values)) for key, values in truth.items()}))
        getattr(found, f"set_{name}_gts")(*map(str, paths))
    return found, np.array(images), np.array(captions), directory


def test_random_ranks_give_what_the_package_computes_of_all_of_them(package):
    found, images, captions, _ = package
    scores = np.random.default_rng(1).standard_normal((len(images), len(captions))).astype(np.float32)
    lists = {
        "i2t": {int(i): captions[np.argsort(-row)].tolist() for i, row in zip(images, scores, strict=True)},
        "t2i": {int(c): images[np.argsort(-row)].tolist() for c, row in zip(captions, scores.T, strict=True)},
    }
    expected = found.compute_all_metrics(
        lists["i2t"],
        lists["t2i"],
        ("eccv_map_at_r", "eccv_rprecision", "eccv_r1", "cxc_recalls", "pmrp"),
        Ks=(1, 5, 10),
    )
    numbers = coco.Numbers(images, captions)
    measured = coco.measure(one_way.of_scores(scores), numbers, found, ("eccv", "cxc", "pmrp"))
    assert measured["eccv"].keys() == {"map_at_r", "rprecision", "r1"}
    for metric, prefix in (("eccv", "eccv_"), ("cxc", "cxc_")):
        for name, both in measured[metric].items():
            for way in ("i2t", "t2i"):
                assert both[way] == pytest.approx(100 * expected[prefix + name][way], abs=1e-3)
    plausible = found.pmrp(lists, "all")
    assert measured["pmrp"]["rprecision"] == pytest.approx({w: 100 * plausible[w] for w in plausible}, abs=1e-3)
    assert "ECCV Caption, mAP@R" in coco.describe(measured)


def test_a_small_case_by_hand():
    """Two pictures, four captions; of the first three are right, found in places 1, 3 and 4."""
    truth = {"i2t": {1: [10, 11, 12]}, "t2i": {12: [1, 2]}}
    small = eccv_caption.Metrics()
    small.eccv_gts = truth
    scores = np.array([[0.9, 0.1, 0.3, 0.5], [0.0, 0.0, 0.2, 0.0]], np.float32)
    numbers = coco.Numbers(np.array([1, 2]), np.array([10, 11, 12, 13]))
    measured = coco.measure(one_way.of_scores(scores), numbers, small, ("eccv",))["eccv"]
    # Places 1 to 3 hold right, wrong, right: R-Precision 2 / 3, mAP@R (1 + 0 + 2 / 3) / 3.
    assert measured["rprecision"]["i2t"] == pytest.approx(200 / 3, abs=1e-3)
    assert measured["map_at_r"]["i2t"] == pytest.approx(500 / 9, abs=1e-3)
    assert (measured["r1"]["i2t"], measured["map_at_r"]["t2i"]) == (100, 100)


def test_a_model_that_cannot_tell_anything_apart_finds_as_little_as_can_be(package):
    found, images, captions, _ = package
    zeros = one_way.of_scores(np.zeros((len(images), len(captions)), np.float32))
    measured = coco.measure(zeros, coco.Numbers(images, captions), found, ("cxc",))
    assert measured["cxc"]["r1"] == {"i2t": 0, "t2i": 0}


def test_a_picture_has_the_number_that_its_captions_have(package):
    found, images, captions, _ = package
    owner = np.repeat(np.arange(7), 3)
    order = np.random.default_rng(2).permutation(21)
    numbers = coco.numbers_of(found, captions[order], owner[order], 7)
    np.testing.assert_array_equal(numbers.images, images)
    with pytest.raises(InputError, match=r"18 of the 21 captions of COCO's 7 test pictures; expected all"):
        coco.numbers_of(found, captions[:18], owner[:18], 6)
    with pytest.raises(InputError, match=r"20 of the 21 .*, and 1 others, 5 the first"):
        coco.numbers_of(found, np.array([5, *captions[1:]]), owner, 7)
    with pytest.raises(InputError, match=r"is of COCO's picture .*, but stands with captions of"):
        coco.numbers_of(found, captions[order], owner, 7)


def test_plausible_matches_have_to_be_there(tmp_path, package):
    with pytest.raises(InputError, match=r"no .*pm_image_to_caption.json and no .*pm_caption_to_image.json"):
        coco.load(("pmrp",), tmp_path)
    assert coco.load(("pmrp",), package[3]).pm_gts == package[0].pm_gts
    real = coco.load(("eccv",), tmp_path)
    assert (len(real.eccv_gts["i2t"]), len(real.eccv_gts["t2i"]), len(real.coco_ids)) == (1261, 1332, 25000)


def write_captions(directory, numbers):
    (directory / "test_capids.txt").write_text("".join(f"{number}\n" for number in numbers))


def test_cocos_numbers_stand_in_one_of_three_files(tmp_path):
    captions, owner, ids = ["A dog.", "a cat", "A dog.", "it is"], np.array([0, 0, 1, 1]), ["30", "31"]
    arguments = (tmp_path, "test", ids, captions, owner)
    with pytest.raises(InputError, match=r"expected test_capids.txt, one number per caption, coco_test_ids.npy or"):
        coco_ids.read(*arguments)
    sentences = {30: [("A cat", 8), ("a dog", 9)], 31: [("It is.", 3), ("A dog", 4)]}
    content = [
        {"imgid": i, "filename": "a", "sentences": [{"raw": raw, "sentid": n} for raw, n in sentences[i]]}
        for i in sentences
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": content}))
    assert coco_ids.read(*arguments).tolist() == [9, 8, 4, 3]
    with pytest.raises(InputError, match="not of the pictures and captions of test"):
        coco_ids.read(tmp_path, "test", ids, [*captions[:3], "another"], owner)
    np.save(tmp_path / "coco_test_ids.npy", np.array([1, 2, 3, 4]))
    assert coco_ids.read(*arguments).tolist() == [1, 2, 3, 4]
    np.save(tmp_path / "coco_test_ids.npy", np.array([1, 2, 3]))
    with pytest.raises(InputError, match=r"holds int64 \(3,\); expected whole numbers, one per caption \(4\)"):
        coco_ids.read(*arguments)
    write_captions(tmp_path, [5, 6, 7, 8])
    assert coco_ids.read(*arguments).tolist() == [5, 6, 7, 8]
    for numbers, message in (
        ([5, 6, 7], "has 3 lines"),
        (["5", "x", "7", "8"], "line 2: 'x'"),
        ([5] * 4, "the same number of COCO"),
    ):
        write_captions(tmp_path, numbers)
        with pytest.raises(InputError, match=message):
            coco_ids.read(*arguments)
