"""The file of ranks: what was written is read, recalls come from it alone, other files are refused."""

import numpy as np
import pytest

from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.retrieval.recall import Ranks, recall

CAPTIONS = (3, 1, 7, 2, 5, 1)
OWNER = np.repeat(np.arange(len(CAPTIONS)), CAPTIONS)


def some(folds=(2, 1), protocol="standard", label_neighbours=""):
    rng = np.random.default_rng(0)

    def ranks():
        return Ranks(*(rng.integers(1, 15, n).astype(np.int32) for n in (len(CAPTIONS), len(OWNER))))

    kinds = ("fused", "instance", "consensus")
    return Evaluation(
        split="test",
        protocol=protocol,
        label_neighbours=label_neighbours,
        image_ids=[f"{7 * i}.jpg" for i in range(len(CAPTIONS))],
        image_of_caption=OWNER,
        ranks={number: {kind: ranks() for kind in kinds} for number in folds},
    )


def test_what_was_saved_is_loaded(tmp_path):
    evaluation = some(protocol="label_completion", label_neighbours="coco")
    path = tmp_path / "ranks.npz"
    evaluation.save(path)
    loaded = Evaluation.load(path)
    assert (loaded.split, loaded.protocol, loaded.label_neighbours) == ("test", "label_completion", "coco")
    assert loaded.image_ids == evaluation.image_ids
    np.testing.assert_array_equal(loaded.image_of_caption, OWNER)
    assert list(loaded.ranks) == [2, 1]
    for folds, kinds in evaluation.ranks.items():
        for kind, ranks in kinds.items():
            np.testing.assert_array_equal(loaded.ranks[folds][kind].i2t, ranks.i2t)
            np.testing.assert_array_equal(loaded.ranks[folds][kind].t2i, ranks.t2i)
    assert loaded.rows() == evaluation.rows()
    with np.load(path) as arrays:
        assert (int(arrays["num_images"]), int(arrays["num_captions"])) == (6, 19)
        assert bool(arrays["transductive"])
    assert [file.name for file in tmp_path.iterdir()] == ["ranks.npz"]


def test_recalls_are_means_over_folds_of_uneven_captions():
    evaluation = some()
    ranks = evaluation.ranks[2]["instance"]
    first = OWNER < 3
    halves = [recall(ranks.t2i[first]), recall(ranks.t2i[~first])]
    found = evaluation.retrieval(2, "instance")
    assert found.t2i.r5 == (halves[0].r5 + halves[1].r5) / 2 != recall(ranks.t2i).r5
    assert found.i2t.r1 == (recall(ranks.i2t[:3]).r1 + recall(ranks.i2t[3:]).r1) / 2
    assert evaluation.retrieval(1, "fused").t2i == recall(evaluation.ranks[1]["fused"].t2i)


def test_rows_say_where_they_are_transductive():
    assert [row["transductive"] for row in some((1,)).rows()] == [False] * 3
    assert "label_neighbours" not in some((1,)).rows()[0]
    row = some((1,), "label_completion", "f30k").rows()[0]
    assert (row["transductive"], row["label_neighbours"]) == (True, "f30k")


def test_names_tell_evaluations_apart():
    evaluations = [
        *(some((1,)), some((5, 1)), some((5,))),
        *(some((1,), "label_completion", rule) for rule in ("f30k", "coco")),
    ]
    assert [evaluation.file_name() for evaluation in evaluations] == [
        "ranks_test_standard.npz",
        "ranks_test_standard_folds5_1.npz",
        "ranks_test_standard_folds5.npz",
        "ranks_test_label_completion_f30k.npz",
        "ranks_test_label_completion_coco.npz",
    ]


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "ranks.npz"
    with pytest.raises(InputError, match="cannot be read"):
        Evaluation.load(path)
    np.savez(path, split=np.array("test"))
    with pytest.raises(InputError, match="not ranks that an evaluation has written"):
        Evaluation.load(path)
    some().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not ranks that an evaluation has written"):
        Evaluation.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="not ranks that an evaluation has written"):
        Evaluation.load(path)
