"""Captions from every source that people hold, joined with pictures, and their splits."""

import gzip
import json
import pathlib

import pytest

from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute.captions import read_captions
from mhcvse_jax.precompute.plan import make_plan

EXPECTED = {"a.jpg": ("A cat.", 'A "black" cat, asleep.'), "sub/b.jpg": ("Zwei Hünde",), "c.jpg": ()}


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def karpathy(split="val"):
    images = []
    for number, (name, captions) in enumerate(EXPECTED.items()):
        folder, _, file = name.rpartition("/")
        sentences = [{"raw": caption, "tokens": []} for caption in captions]
        image = {"filename": file, "imgid": number, "cocoid": 500 + number, "split": split, "sentences": sentences}
        images.append(image | ({"filepath": folder} if folder else {}))
    return {"dataset": "coco", "images": images}


def coco():
    images = [{"id": 70 + number, "file_name": name, "width": 3} for number, name in enumerate(EXPECTED)]
    notes = [(70 + n, text) for n, texts in enumerate(EXPECTED.values()) for text in texts]
    annotations = [{"id": i, "image_id": n, "caption": text} for i, (n, text) in enumerate(notes)]
    return {"info": {}, "images": images, "annotations": annotations}


SOURCES = {
    "comma.csv": 'file_name,caption\na.jpg,A cat.\na.jpg,"A ""black"" cat,\nasleep."\nsub/b.jpg,Zwei Hünde\nc.jpg,\n',
    "semicolon.csv": 'Caption;Image\nA cat.;a.jpg\n"A ""black"" cat, asleep.";a.jpg\nZwei Hünde;sub/b.jpg\n;c.jpg\n',
    "flickr30k.csv": 'image_name| comment_number| comment\na.jpg| 0| A cat.\na.jpg| 1| "A ""black"" cat, asleep."\n'
    "sub/b.jpg| 0| Zwei Hünde\nc.jpg| 0|\n",
    "bom.csv": '\ufefffile,text\r\na.jpg,A cat.\r\na.jpg,"A ""black"" cat, asleep."\r\n'
    "sub/b.jpg,Zwei Hünde\r\nc.jpg,\r\n",
    "lines.jsonl": "\n".join(json.dumps({"file_name": n, "captions": t}) for n, t in EXPECTED.items()),
    "one_each.jsonl": "".join(
        json.dumps({"image": n, "caption": t}, ensure_ascii=False) + "\n"
        for n, texts in EXPECTED.items()
        for t in texts or [""]
    ),
    "array.json": json.dumps([{"file_name": n, "captions": t} for n, t in EXPECTED.items()], indent=1),
    "tokens.txt": 'a.jpg#0\tA cat.\na.jpg#1\tA "black" cat, asleep.\nsub/b.jpg#0\tZwei Hünde\nc.jpg#0\t\n',
    "karpathy.json": json.dumps(karpathy()),
    "coco.json": json.dumps(coco(), indent=2),
}


def test_cocos_numbers_of_captions_are_kept(tmp_path):
    """Of the sources that have them; a caption that is empty has none."""
    content = karpathy()
    for number, image in enumerate(content["images"]):
        for place, sentence in enumerate(image["sentences"]):
            sentence["sentid"] = 100 * number + place
        image["sentences"].insert(0, {"raw": " ", "sentid": 99})
    found = read_captions(written(tmp_path / "karpathy.json", json.dumps(content)))
    assert [picture.caption_ids for picture in found] == [("0", "1"), ("100",), ()]
    found = read_captions(written(tmp_path / "coco.json", json.dumps(coco())))
    assert [picture.caption_ids for picture in found] == [("0", "1"), ("2",), ()]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same(tmp_path, name):
    found = read_captions(written(tmp_path / name, SOURCES[name]))
    assert {picture.name: picture.captions for picture in found} == EXPECTED
    assert {picture.split for picture in found} == ({"dev"} if name == "karpathy.json" else {None})
    assert [picture.image_id for picture in found] == {
        "karpathy.json": ["0", "1", "2"],
        "coco.json": ["70", "71", "72"],
    }.get(name, list(EXPECTED))
    assert {picture.split for picture in read_captions(tmp_path / name, "train")} == {"train"}
    compressed = tmp_path / f"{name}.gz"
    compressed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    assert read_captions(compressed) == found


def test_a_directory_in_scans_layout_is_a_source(tmp_path):
    captions = [f"caption {i} of {split}" for split in ("train", "test") for i in range(10)]
    for number, split in enumerate(("train", "test")):
        written(tmp_path / f"{split}_caps.txt", "\n".join(captions[10 * number : 10 * number + 10]) + "\n")
        written(tmp_path / f"{split}_ids.txt", f"{number}7\n{number}8\n")
    found = {picture.image_id: picture for picture in read_captions(tmp_path)}
    assert list(found) == ["17", "18", "07", "08"]
    assert found["18"].captions == tuple(captions[15:])
    assert found["07"].split == "train"
    written(tmp_path / "test_caption_images.txt", "18\n" * 3 + "17\n" * 7)
    found = {picture.image_id: picture for picture in read_captions(tmp_path)}
    assert found["18"].captions == tuple(captions[10:13])
    assert found["17"].captions == tuple(captions[13:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,caption\na.jpg,ein Hund,zwei\n", "line 2: more cells than the 2 columns; expected a caption in"),
        ("picture,words\na.jpg,cat\n", "line 2: columns picture, words; expected one of file_name"),
        ("file_name,caption\n,cat\n", "line 2: columns"),
        ('{"file_name": "a.jpg", "caption": "x"}\n{"file_name": \n', "line 2: not JSON"),
        ('{"file_name": "a.jpg", "caption": 7}\n{"file_name": "b.jpg", "caption": "x"}\n', "line 1: a caption 7"),
        ('{"images": [{"filename": "a.jpg"}]}', "damaged, or in an unknown format (KeyError: 'sentences')"),
        (
            '{"images": [], "annotations": [{"image_id": 3, "caption": "x"}]}',
            "annotation 0 is of image 3; expected one",
        ),
        ('{"images": [', "damaged JSON"),
        ("a.jpg#0\tA cat.\nb.jpg A dog.\n", "line 2: 'b.jpg A dog.'; expected NAME#NUMBER"),
        ("file,caption\na.jpg," + "x" * 5000, "line 2: 5,000 characters; expected 4,096 at most"),
        (
            "file,caption,split\na.jpg,x,train\na.jpg,y,test\n",
            "line 3: a.jpg has split test and id a.jpg; expected train",
        ),
        ("file,caption,split\na.jpg,x,../up\n", "line 2: split '../up'; expected train, dev"),
        ("file,caption\n", "no caption in it"),
    ],
)
def test_damaged_sources_are_refused_where_they_are(tmp_path, text, message):
    with pytest.raises(InputError) as refused:
        read_captions(written(tmp_path / "captions", text))
    assert str(tmp_path / "captions") in str(refused.value)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_latin_1_is_refused_with_the_line_and_the_remedy(tmp_path):
    (tmp_path / "captions.csv").write_bytes("file,caption\na.jpg,cat\nb.jpg,Hünde\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"captions.csv line 3: not UTF-8 .* iconv"):
        read_captions(tmp_path / "captions.csv")


def plan(tmp_path, items, text, *, lists=None, shares=None, seed=0, uncaptioned=None):
    captioned = read_captions(written(tmp_path / "captions", text))
    made, said = make_plan(
        {name: pathlib.Path(name) for name in items},
        captioned,
        lists=lists or {},
        shares=shares or {},
        seed=seed,
        uncaptioned=uncaptioned,
        items_are_files=True,
    )
    return {split: [picture.name for picture in pictures] for split, pictures in made.items()}, said


def csv(*names):
    return "file,caption\n" + "".join(f"{name},a cat\n" for name in names)


def test_what_does_not_join_is_counted_and_named(tmp_path):
    made, said = plan(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], csv("a.jpg", "x.jpg", "y.jpg"))
    assert made == {"train": ["a.jpg"]}
    assert said[0] == "2 pictures that captions name and are not there: x.jpg, y.jpg"
    assert said[1].startswith("2 pictures without captions: b.jpg, c.jpg; --uncaptioned")
    made, said = plan(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], csv("a.jpg"), uncaptioned="search")
    assert made == {"train": ["a.jpg"], "search": ["b.jpg", "c.jpg"]}
    assert not said
    with pytest.raises(
        InputError, match=r"captions name no picture that is there; expected such as a.jpg, found x.jpg"
    ):
        plan(tmp_path, ["a.jpg"], csv("x.jpg"))


def test_names_are_found_by_folder_suffix_and_number_but_never_another_picture(tmp_path):
    items = ["cats/1.jpg", "dogs/2.jpg", "COCO_val2014_000000000042.jpg", "plain.png"]
    wanted = ["1.jpg", "photos/dogs/2.jpg", "42", "plain.jpg"]
    assert plan(tmp_path, items, csv(*wanted))[0] == {"train": items}
    for wrong in ("dogs/1.jpg", "cat_1.jpg", "142"):
        made, said = plan(tmp_path, items, csv("plain.png", wrong))
        assert made == {"train": ["plain.png"]}
        assert said[0] == f"1 picture that captions name and are not there: {wrong}"
    with pytest.raises(InputError, match=r"1.jpg is cats/1.jpg or dogs/1.jpg; expected captions that name the folder"):
        plan(tmp_path, ["cats/1.jpg", "dogs/1.jpg"], csv("1.jpg"))
    with pytest.raises(InputError, match=r"captions of 1.jpg and cats/1.jpg fit one picture"):
        plan(tmp_path, ["cats/1.jpg"], csv("1.jpg", "cats/1.jpg"))


def test_splits_by_lists_keep_the_lists_order(tmp_path):
    names = [f"{letter}.jpg" for letter in "abcde"]
    lists = {"train": ["d.jpg", "b.jpg"], "dev": ["c"], "test": ["missing.jpg", "a.jpg"]}
    made, said = plan(tmp_path, names, csv(*names), lists=lists)
    assert made == {"train": ["d.jpg", "b.jpg"], "dev": ["c.jpg"], "test": ["a.jpg"]}
    assert said == ["1 picture that no list of a split names: e.jpg"]
    with pytest.raises(InputError, match=r"b.jpg is listed twice, for train and dev"):
        plan(tmp_path, names, csv(*names), lists=lists | {"dev": ["b.jpg"]})
    with pytest.raises(InputError, match="the list of dev names no picture"):
        plan(tmp_path, names, csv(*names), lists=lists | {"dev": ["x.jpg"]})


def test_shares_are_of_pictures_and_of_the_seed(tmp_path):
    names = [f"{i}.jpg" for i in range(200)]
    shares = {"dev": 0.1, "test": 0.25}
    made, _ = plan(tmp_path, names, csv(*names), shares=shares)
    assert {split: len(found) for split, found in made.items()} == {"train": 130, "dev": 20, "test": 50}
    assert sorted(name for found in made.values() for name in found) == sorted(names)
    assert plan(tmp_path, names, csv(*reversed(names)), shares=shares)[0]["dev"] == made["dev"][::-1]
    other, _ = plan(tmp_path, names, csv(*names), shares=shares, seed=1)
    assert set(other["dev"]) != set(made["dev"])
    with pytest.raises(InputError, match="2 pictures cannot be shared among dev, test and train"):
        plan(tmp_path, names[:2], csv(*names[:2]), shares=shares)


def test_splits_are_given_for_all_or_none(tmp_path):
    text = "file,caption,split\na.jpg,x,restval\nb.jpg,y,val\nc.jpg,z,test\n"
    assert plan(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], text)[0] == {
        "train": ["a.jpg"],
        "dev": ["b.jpg"],
        "test": ["c.jpg"],
    }
    with pytest.raises(InputError, match=r"1 picture without a split: d.jpg; expected all or none"):
        plan(tmp_path, ["a.jpg", "d.jpg"], text + "d.jpg,x,\n")


def test_ids_and_names_that_no_line_can_hold_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"picture 'a\\nb.jpg': expected a name"):
        plan(tmp_path, ["a\nb.jpg", "c.jpg"], csv("c.jpg"), uncaptioned="search")
    with pytest.raises(InputError, match="id 7 is that of 2 pictures"):
        plan(tmp_path, ["a.jpg", "b.jpg"], "file,id,caption\na.jpg,7,x\nb.jpg,7,y\n")
