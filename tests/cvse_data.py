"""A small data set in SCAN's layout with what a CVSE checkpoint goes with: vocabulary, concepts, vectors, graph.

A region shows a word of its picture's captions, so that recall can be learned. The captions hold what the original
reads in its own way: apostrophes, quotation marks, both, and letters that are not ASCII. No caption stands twice in a
split: how the original ranks equal ones is left to chance.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from nltk.tokenize import TreebankWordTokenizer

GOLDEN = pathlib.Path(__file__).parent / "golden"
IMAGES = {"train": 40, "dev": 3, "test": 19}  # those of the golden files
REGIONS, FEATURES, CONCEPT_WIDTH = 5, 11, 3
TEXT = (
    "man woman dog boy ball bright blue brown baby bicycle runs jumps sits red green hat tree snow water field street "
    "beach crowd child girl shirt rides holds black white"
)
WORDS = TEXT.split()
CONCEPTS = ("man", "dog", "boy", "ball", "red", "green", "runs", "jumps", "b", "snow", "field", "crowd", "absent")
FORMS = ("{} {} and {} .", "{} {}'s {} .", 'the "{}" {} {}', '{}\'s "{}" and {}.', "naïve {} {} – {}", "b {} {} {}")


class CvseData(NamedTuple):
    """Where the files are, and what the checkpoint is to hold of them."""

    directory: pathlib.Path
    words: list[str]
    vectors: np.ndarray
    adjacency: np.ndarray

    @property
    def arguments(self):
        """What `import_pytorch` is to be told beside checkpoint and workdir."""
        return (
            *("--vocab", self.directory / "vocab.json", "--concepts", self.directory / "category_concepts.json"),
            *("--concept_embeddings", self.directory / "vectors.npy", "--data_dir", self.directory),
        )


def write(directory, **num_images):
    """Writes the splits that are named, each with so many pictures, and all else."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(len(WORDS), FEATURES))
    all_captions = []
    for split, number in num_images.items():
        captions, regions = {}, np.zeros((number, REGIONS, FEATURES), np.float32)
        for image in range(number):
            topic = rng.choice(len(WORDS), REGIONS, replace=False)
            regions[image] = looks[topic] + 0.3 * rng.normal(size=(REGIONS, FEATURES))
            while len(captions) < 5 * (image + 1):
                caption = rng.choice(FORMS).format(*(WORDS[i] for i in rng.choice(topic, 3, replace=False)))
                captions.setdefault(caption)
        all_captions += captions
        np.save(directory / f"{split}_ims.npy", regions)
        (directory / f"{split}_caps.txt").write_text("".join(f"{line} \n" for line in captions), encoding="utf-8")
        (directory / f"{split}_ids.txt").write_text("".join(f"{image}\n" for image in range(number)))
    tokens = sorted({token for line in all_captions for token in TreebankWordTokenizer().tokenize(line.lower())})
    words = ["<pad>", "<start>", "<end>", "<unk>", *(token for token in tokens if token not in ("bicycle", "–"))]
    ids = {word: i for i, word in enumerate(words)}
    content = {"word2idx": ids, "idx2word": {str(i): word for i, word in enumerate(words)}, "idx": len(words)}
    (directory / "vocab.json").write_text(json.dumps(content))
    (directory / "category_concepts.json").write_text(json.dumps({word: i for i, word in enumerate(CONCEPTS)}))
    vectors = rng.normal(size=(len(CONCEPTS), CONCEPT_WIDTH)).astype(np.float32)
    np.save(directory / "vectors.npy", vectors)
    neighbours = rng.random((len(CONCEPTS),) * 2) < 0.3
    np.fill_diagonal(neighbours, val=False)
    adjacency = np.eye(len(CONCEPTS)) + 0.25 * neighbours / (neighbours.sum(axis=0) + 1e-6)
    return CvseData(directory, words, vectors, adjacency.astype(np.float32))


def run(module, capsys, *arguments):
    """Runs a command in this process; returns its exit code, what it printed, and its errors."""
    code = module.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err
