"""A download that failed is called what it is, whichever reader meets it and whatever the file is named."""

import bz2
import gzip
import lzma
import tarfile
import zipfile

import pytest

from mhcvse_jax.comparison import recall_files, sources
from mhcvse_jax.data import feature_source, karpathy, region_boxes, scan_layout, word_vectors
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.importers import IMPORTERS
from mhcvse_jax.precompute import captions
from mhcvse_jax.retrieval import similarity

PAGE = b"<!DOCTYPE html>\n<html><head><title>Quota exceeded</title></head><body>Sign in</body></html>\n"
WANTED = sources.Wanted()


def index(format_name, path):
    """Every picture of a format's files; the first that cannot be used is raised."""
    for found in IMPORTERS[format_name]([path]).index(lambda read: None):
        if isinstance(found, InputError):
            raise found


READERS = {
    "dev_ims.npy": scan_layout.map_features,
    "dev_num_regions.npy": lambda path: scan_layout.read_num_regions(path.parent, "dev", 7, 3),
    "dev_boxes.npy": lambda path: region_boxes.map_rows(path, 7, (3, 4)),
    "dataset_coco.json": lambda path: karpathy.image_names(path.parent, "dev", ["0"], ["a dog"], [0]),
    "features.json": lambda path: feature_source.read(path.parent),
    "glove.vec": lambda path: word_vectors.read_word_vectors(path, ["dog"], 3),
    "captions.csv": captions.read_captions,
    "captions.jsonl": captions.read_captions,
    "recalls.csv": recall_files.read_csv,
    "recalls.json": lambda path: sources.read(str(path), WANTED),
    "ranks.npz": Evaluation.load,
    "similarity.npy": lambda path: similarity.of_file(path, 5),
    "trainval_36.tsv": lambda path: index("butd_tsv", path),
    "coco_feat000.h5": lambda path: index("vlp_hdf5", path.parent),
    "0.npz": lambda path: index("milvlg_npz", path.parent),
    "0.npy": lambda path: index("npy", path.parent),
}


@pytest.mark.parametrize("name", READERS)
def test_a_web_page_is_called_one_by_every_reader(tmp_path, name):
    (tmp_path / name).write_bytes(PAGE)
    with pytest.raises(InputError, match=rf"{name} is a web page: the download failed, .*; download it again"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zip", "tar"])
def test_an_archive_is_to_be_unpacked(tmp_path, kind):
    vectors, packed = tmp_path / "glove.vec", tmp_path / "packed.vec"
    vectors.write_text("dog 1 2 3\n")
    if kind == "tar":
        with tarfile.open(packed, "w") as archive:
            archive.add(vectors, "glove.vec")
    elif kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            archive.write(vectors, "glove.vec")
    else:
        compress = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}[kind]
        packed.write_bytes(compress(vectors.read_bytes()))
    with pytest.raises(InputError, match=rf"packed\.vec is a {kind} archive; unpack it"):
        word_vectors.read_word_vectors(packed, ["dog"], 3)
