"""Each format of region features, written here by its description, becomes the same data directory."""

import base64
import json
import pickle
import tracemalloc

import h5py
import numpy as np
import pytest

from mhcvse_jax import check_data, import_features
from mhcvse_jax.data import region_names
from mhcvse_jax.importers import IMPORTERS
from mhcvse_jax.importers.tsv import ButdTsv

WIDTH = 7
IDS = [9, 42, 139, 285, 632, 724, 776, 785]  # numbers of pictures of COCO, in the order of the captions
ORDER = [632, 9, 785, 285, 42, 776, 139, 724]  # that of the features


def name_of(image_id):
    return f"COCO_val2014_{image_id:012}"


def facts_of(image_id, *, varying=True):
    """Features, boxes, (width, height), classes and scores: all of odd sizes, no picture square."""
    rng = np.random.default_rng(image_id)
    num = 2 + image_id % 4 if varying else 3
    width, height = 101 + image_id, 53 + image_id % 31
    corners = np.sort(rng.random((num, 2, 2)), axis=1) * [width, height]
    corners[0, 1] = width, height  # a box that reaches into the far corner
    return {
        "features": rng.random((num, WIDTH)).astype(np.float32),
        "boxes": corners.reshape(num, 4).astype(np.float32),
        "size": (width, height),
        "classes": rng.integers(0, 1600, num),
        "class_scores": rng.random(num).astype(np.float32),
        "attributes": rng.integers(0, 400, num),
        "attribute_scores": rng.random(num).astype(np.float32),
    }


def encoded(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def butd_tsv(folder):
    lines = []
    for image_id in ORDER:
        facts = facts_of(image_id)
        cells = [image_id, *facts["size"], len(facts["boxes"]), encoded(facts["boxes"]), encoded(facts["features"])]
        lines.append("\t".join(map(str, cells)) + "\r\n")  # as Python 2's csv ends lines
    (folder / "a.tsv").write_text("".join(lines[:3]), newline="")
    (folder / "b.tsv").write_text("".join(lines[3:]), newline="")
    return [folder / "a.tsv", folder / "b.tsv"], (), ("boxes", "size")


def lxmert_tsv(folder):
    lines = []
    for image_id in ORDER:
        facts = facts_of(image_id)
        names = ("classes", "class_scores", "attributes", "attribute_scores")
        arrays = (encoded(facts[name]) for name in names)
        cells = [name_of(image_id), *facts["size"][::-1], *arrays, len(facts["boxes"])]
        cells += [encoded(facts["boxes"]), encoded(facts["features"])]
        lines.append("\t".join(map(str, cells)))
    (folder / "val.tsv").write_text("\n".join(lines) + "\n")
    return [folder / "val.tsv"], (), ("boxes", "size", *names)


def butd_hdf5(folder, *, varying=False):
    found = [facts_of(image_id, varying=varying) for image_id in ORDER]
    shares = [np.concatenate((f["boxes"] / np.tile(f["size"], 2), np.ones((len(f["boxes"]), 2))), 1) for f in found]
    join = np.concatenate if varying else np.stack
    with h5py.File(folder / "val36.hdf5", "w") as file:
        file["image_features"] = join([f["features"] for f in found])
        file["image_bb"] = join([f["boxes"] for f in found])
        file["spatial_features"] = join(shares).astype(np.float32)
        if varying:
            ends = np.cumsum([len(f["boxes"]) for f in found])
            file["pos_boxes"] = np.stack([np.concatenate(([0], ends[:-1])), ends], 1).astype(np.int32)
    with (folder / "val36_imgid2idx.pkl").open("wb") as file:
        pickle.dump({image_id: row for row, image_id in enumerate(ORDER)}, file)
    return [folder / "val36.hdf5"], (), ("boxes", "size")


def adaptive_hdf5(folder):
    return butd_hdf5(folder, varying=True)


def milvlg_npz(folder):
    for image_id in ORDER:
        facts = facts_of(image_id)
        width, height = facts["size"]
        info = np.array({"image_id": image_id, "objects_id": facts["classes"]}, dtype=object)
        np.savez(
            folder / f"{name_of(image_id)}.jpg.npz",
            **{"x": facts["features"], "bbox": facts["boxes"], "num_bbox": len(facts["boxes"]), "info": info},
            **{"image_h": height, "image_w": width},
        )
    return [folder], (), ("boxes", "size")


def mcan_npz(folder):
    """As MILVLG's, x turned; numbers as arrays of one."""
    for image_id in ORDER:
        facts = facts_of(image_id)
        sides = {"image_w": np.array([facts["size"][0]]), "image_h": np.float64(facts["size"][1])}
        arrays = {"x": facts["features"].T, "bbox": facts["boxes"], "num_bbox": np.array([len(facts["boxes"])])}
        np.savez(folder / f"{name_of(image_id)}.jpg.npz", **arrays, **sides)
    return [folder], (), ("boxes", "size")


def sgae(folder):
    for part in ("att", "box", "fc"):
        (folder / f"cocobu_{part}").mkdir()
    for image_id in ORDER:
        facts = facts_of(image_id)
        np.savez_compressed(folder / "cocobu_att" / f"{image_id}.npz", feat=facts["features"])
        np.save(folder / "cocobu_box" / f"{image_id}.npy", facts["boxes"])
        np.save(folder / "cocobu_fc" / f"{image_id}.npy", facts["features"].mean(0))
    return [folder / "cocobu_att"], (), ("boxes",)


def vlp_hdf5(folder):
    with h5py.File(folder / "val_bbox.h5", "w") as boxes:
        for image_id in ORDER:
            facts = facts_of(image_id)
            name = name_of(image_id)
            with h5py.File(folder / f"val_feat{name[-3:]}.h5", "a") as file:
                file[name] = facts["features"]
            columns = facts["boxes"], facts["classes"][:, None], facts["class_scores"][:, None]
            boxes[name] = np.concatenate(columns, axis=1)
    return [folder], ("--boxes", folder / "val_bbox.h5"), ("boxes",)


def vinvl_tsv(folder):
    lines = []
    for image_id in ORDER:
        facts = facts_of(image_id)
        objects = [
            {"rect": box.tolist(), "conf": float(score), "class": f"thing {number}", "feature": encoded(features)}
            for box, score, number, features in zip(
                *(facts[name] for name in ("boxes", "class_scores", "classes", "features")), strict=True
            )
        ]
        lines.append(f"{image_id}\t{json.dumps({'objects': objects})}\n")
    (folder / "predictions.tsv").write_text("".join(lines))
    (folder / "predictions.lineidx").write_text("0\n")
    return (
        [folder / "predictions.tsv"],
        (),
        ("boxes", "named classes", "class_scores"),
    )  # these get numbers of their own


def vinvl_features(folder):
    lines = []
    for image_id in ORDER:
        features = facts_of(image_id)["features"]
        lines.append(f"{image_id}\t{json.dumps({'num_boxes': len(features), 'features': encoded(features)})}\n")
    (folder / "feature.tsv").write_text("".join(lines))
    return [folder / "feature.tsv"], (), ()


def npy(folder):
    for image_id in ORDER:
        np.save(folder / f"{image_id}.npy", facts_of(image_id)["features"])
    return [folder], (), ()


WRITERS = {
    "butd_tsv": (butd_tsv, lxmert_tsv.__name__),
    "lxmert_tsv": (lxmert_tsv, butd_tsv.__name__),
    "butd_hdf5": (butd_hdf5, "npy"),
    "butd_hdf5 ": (adaptive_hdf5, "vlp_hdf5"),
    "milvlg_npz": (milvlg_npz, "sgae"),
    "milvlg_npz ": (mcan_npz, "sgae"),
    "sgae": (sgae, "milvlg_npz"),
    "vlp_hdf5": (vlp_hdf5, "butd_hdf5"),
    "vinvl_tsv": (vinvl_tsv, "butd_tsv"),
    "vinvl_tsv ": (vinvl_features, "lxmert_tsv"),
    "npy": (npy, "milvlg_npz"),
}
"""By format, what writes it, and another format that it is not."""


def captions(folder, *, missing=()):
    """Karpathy's JSON: two captions per picture, the first six for training; ids are not COCO's numbers."""
    images = [
        {
            "filename": f"{name_of(image_id)}.jpg",
            "filepath": "val2014",
            "cocoid": image_id,
            "imgid": number,
            "split": "train" if number < 6 else "val",
            "sentences": [{"raw": f"caption {k} of {image_id}"} for k in range(2)],
        }
        for number, image_id in enumerate([*IDS, *missing])
    ]
    path = folder / "dataset_coco.json"
    path.write_text(json.dumps({"images": images}))
    return path


def run(folder, format_name, paths, more=(), out="out"):
    source = captions(folder) if "--captions" not in more else None
    words = ["--format", format_name, "--features", *paths, "--out", folder / out, *more]
    return import_features.main([str(word) for word in words + (["--captions", source] if source else [])])


def test_there_is_a_file_of_every_format():
    assert {name.strip() for name in WRITERS} == set(IMPORTERS)


@pytest.mark.parametrize("key", WRITERS)
def test_each_format_keeps_features_boxes_and_sizes(tmp_path, key):
    writer, _ = WRITERS[key]
    (tmp_path / "source").mkdir()
    paths, more, known = writer(tmp_path / "source")
    assert run(tmp_path, key.strip(), paths, more) == 0
    out = tmp_path / "out"
    varying = writer is not butd_hdf5
    for split, ids in (("train", IDS[:6]), ("dev", IDS[6:])):
        expected = [facts_of(image_id, varying=varying) for image_id in ids]
        nums = [len(facts["features"]) for facts in expected]
        features = np.load(out / f"{split}_ims.npy")
        assert features.shape == (len(ids), max(len(facts_of(i, varying=varying)["boxes"]) for i in IDS), WIDTH)
        assert (out / f"{split}_num_regions.npy").exists() == varying
        if varying:
            assert np.load(out / f"{split}_num_regions.npy").tolist() == nums
        for row, (facts, num) in enumerate(zip(expected, nums, strict=True)):
            np.testing.assert_array_equal(features[row, :num], facts["features"])
            np.testing.assert_array_equal(features[row, num:], 0)
        for name in ("boxes", "classes", "class_scores", "attributes", "attribute_scores"):
            path = out / f"{split}_{name}.npy"
            assert path.exists() == (name in known or f"named {name}" in known)
            if name in known:
                for row, (facts, num) in enumerate(zip(expected, nums, strict=True)):
                    np.testing.assert_array_equal(np.load(path)[row, :num], facts[name])
        if "size" in known:
            assert np.load(out / f"{split}_image_sizes.npy").tolist() == [list(facts["size"]) for facts in expected]
        assert (out / f"{split}_ids.txt").read_text().split() == [str(IDS.index(image_id)) for image_id in ids]
        names = [f"val2014/{name_of(image_id)}.jpg" for image_id in ids]
        assert (out / f"{split}_image_names.txt").read_text().split() == names
        lines = [f"caption {k} of {image_id}" for image_id in ids for k in range(2)]
        assert (out / f"{split}_caps.txt").read_text().splitlines() == lines
    assert json.loads((out / "features.json").read_text())["encoder"] == key.strip()


@pytest.mark.parametrize("key", WRITERS)
def test_a_file_of_another_format_is_refused(tmp_path, capsys, key):
    writer, other = WRITERS[key]
    (tmp_path / "source").mkdir()
    paths, _, _ = writer(tmp_path / "source")
    assert run(tmp_path, other, paths) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "source") in error
    assert "expected" in error or "not" in error
    assert error.count("\n") == 1


def damaged(facts, kind):
    """Returns the cells of a line of butd_tsv that is damaged."""
    cells = [
        "9",
        *map(str, facts["size"]),
        str(len(facts["boxes"])),
        encoded(facts["boxes"]),
        encoded(facts["features"]),
    ]
    changes = {
        "not base64": {5: "***"},
        "bytes; expected": {5: encoded(facts["features"])[:-8]},
        "boxes that are not finite": {4: encoded(facts["boxes"] * np.float32("inf"))},
        "features that are not finite": {5: encoded(facts["features"] * np.float32("nan"))},
        "'many'; expected a whole number": {3: "many"},
        "'-3'; expected a whole number": {1: "-3"},
        "a picture of 0 x": {1: "0"},
        "the other way round": {1: cells[2], 2: cells[1]},
        "expected (3, 7)": {5: encoded(np.ones((3, WIDTH + 1), np.float32))},
    }
    return [changes[kind].get(i, cell) for i, cell in enumerate(cells)]


@pytest.mark.parametrize(
    "kind",
    [
        *("not base64", "bytes; expected", "boxes that are not finite", "features that are not finite"),
        *("'many'; expected a whole number", "'-3'; expected a whole number", "a picture of 0 x"),
        *("the other way round", "expected (3, 7)"),
    ],
)
def test_a_damaged_picture_is_left_out_or_with_strict_refused(tmp_path, capsys, kind):
    paths, _, _ = butd_tsv(tmp_path)
    lines = (paths[0]).read_text().splitlines()
    lines[1] = "\t".join(damaged(facts_of(9), kind))
    paths[0].write_text("\n".join(lines) + "\n")
    assert run(tmp_path, "butd_tsv", paths) == 0
    said = capsys.readouterr().out
    assert kind in said
    assert np.load(tmp_path / "out" / "train_ims.npy").shape[0] == 5
    assert run(tmp_path, "butd_tsv", paths, ["--strict"], out="strict") == 2
    assert kind in capsys.readouterr().err


def test_what_does_not_join_is_counted(tmp_path, capsys):
    paths, _, _ = butd_tsv(tmp_path)
    with paths[1].open("a", newline="") as file:
        file.write(paths[0].read_text().splitlines()[0] + "\n")  # once more
        facts = facts_of(100)
        cells = [100, *facts["size"], len(facts["boxes"]), encoded(facts["boxes"]), encoded(facts["features"])]
        file.write("\t".join(map(str, cells)) + "\n101\t20\t3")  # and one that is cut short
    source = captions(tmp_path, missing=(7, 8))
    assert run(tmp_path, "butd_tsv", paths, ["--captions", source]) == 0
    said = capsys.readouterr().out
    assert "2 pictures that captions name and are not there: val2014/COCO_val2014_000000000007.jpg" in said
    assert "1 picture without captions: 100" in said
    assert "1 more of an id that was there before, such as 632" in said
    assert "line 8: 3 columns; expected 6, as --format butd_tsv has" in said


def test_names_of_classes_make_a_directory_readable(tmp_path, capsys):
    paths, _, _ = lxmert_tsv(tmp_path)
    for number in (1600, 400):
        (tmp_path / f"{number}.txt").write_text("".join(f"thing{i},synonym\n" for i in range(number)))
    assert run(tmp_path, "lxmert_tsv", paths) == 0
    (tmp_path / "small.txt").write_text("dog\n")
    assert run(tmp_path, "lxmert_tsv", paths, ["--class_names", tmp_path / "small.txt"]) == 2
    assert "class_names.txt: 1 names, and a region has number" in capsys.readouterr().err
    names = ["--class_names", tmp_path / "1600.txt", "--attribute_names", tmp_path / "400.txt"]
    assert run(tmp_path, "lxmert_tsv", paths, names) == 0  # the directory is there, and gets the names
    most = np.bincount(np.concatenate([facts_of(i)["classes"] for i in IDS[:6]])).argmax()
    check_data.main([str(tmp_path / "out")])
    assert f"; the most common: thing{most} " in capsys.readouterr().out
    paths, _, _ = butd_tsv(tmp_path)
    assert run(tmp_path, "butd_tsv", paths, names, out="butd") == 2
    assert "its regions have no classes; expected none of their names" in capsys.readouterr().err


def test_a_pickle_that_asks_for_code_is_not_run(tmp_path, capsys):
    paths, _, _ = butd_hdf5(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR.")
    assert run(tmp_path, "butd_hdf5", paths, ["--ids", tmp_path / "evil.pkl"]) == 2
    assert "os.system" in capsys.readouterr().err
    assert not (tmp_path / "owned").exists()
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "folder" / "9.npz", x=np.array([{}], dtype=object), bbox=np.ones((1, 4)), num_bbox=1)
    assert run(tmp_path, "milvlg_npz", [tmp_path / "folder"]) == 2
    assert "Object arrays cannot be loaded" in capsys.readouterr().err


def test_names_of_vinvls_classes_are_kept(tmp_path):
    paths, _, _ = vinvl_tsv(tmp_path)
    assert run(tmp_path, "vinvl_tsv", paths) == 0
    told = region_names.read(tmp_path / "out", "train", 6, 5)
    for row, image_id in enumerate(IDS[:6]):
        expected = [f"thing {number}" for number in facts_of(image_id)["classes"]]
        assert told.of(row)[: len(expected)] == expected


@pytest.mark.parametrize("content", ['{"num_boxes": "x"}', '{"objects": 3}', '{"objects": [{"rect": 1}]}', "[1]", "{"])
def test_lines_of_vinvl_that_are_damaged_are_left_out(tmp_path, capsys, content):
    (path,), _, _ = vinvl_tsv(tmp_path)
    lines = path.read_text().splitlines()
    lines[1] = f"9\t{content}"
    path.write_text("\n".join(lines) + "\n")
    assert run(tmp_path, "vinvl_tsv", [path]) == 0
    assert "left out  " + str(path) in capsys.readouterr().out
    assert np.load(tmp_path / "out" / "train_ims.npy").shape[0] == 5


def test_box_numbers_of_vinvl_are_no_features(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.random((3, 2054)).astype(np.float32)
    lines = [f"{i}\t{json.dumps({'num_boxes': 3, 'features': encoded(features)})}\n" for i in IDS]
    (tmp_path / "feature.tsv").write_text("".join(lines))
    assert run(tmp_path, "vinvl_tsv", [tmp_path / "feature.tsv"]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "dev_ims.npy")[1], features[:, :2048])


def test_scans_layout_comes_out_to_the_bit(tmp_path):
    """What trains from the one trains from the other: every file that a training reads is the same."""
    features = np.random.default_rng(0).random((2, 3, 4, WIDTH)).astype(np.float32)
    scan = tmp_path / "scan"
    scan.mkdir()
    (tmp_path / "npy").mkdir()
    for split, first in (("train", 0), ("dev", 3)):
        rows = features[first // 3]
        np.save(scan / f"{split}_ims.npy", rows)
        (scan / f"{split}_ids.txt").write_text("".join(f"{first + i}\n" for i in range(3)))
        (scan / f"{split}_caps.txt").write_text("".join(f"picture {i} words {k}\n" for i in range(3) for k in range(5)))
        for i in range(3):
            np.save(tmp_path / "npy" / f"{first + i}.npy", rows[i])
    assert run(tmp_path, "npy", [tmp_path / "npy"], ["--captions", scan]) == 0
    for path in scan.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "out").glob("*_caption_images.txt"))


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Lines of a megabyte, forty times over: indexing and reading hold one at a time."""
    boxes, features = encoded(np.ones((100, 4), np.float32)), encoded(np.ones((100, 2048), np.float32))
    with (tmp_path / "large.tsv").open("w") as file:
        for image_id in range(40):
            file.write(f"{image_id}\t640\t480\t100\t{boxes}\t{features}\n")
    importer = ButdTsv([tmp_path / "large.tsv"])
    tracemalloc.start()
    try:
        entries = import_features.read_index(importer, strict=True)
        for entry in entries.values():
            importer.read(entry)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(entries) == 40
    assert peak < 8_000_000
