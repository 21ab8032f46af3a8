"""A data set as the model sees it: splits with token ids and concept labels, vocabulary, concept graph."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from mhcvse_jax.data import concept_graph, text, word_vectors
from mhcvse_jax.data import concepts as concepts_lib
from mhcvse_jax.data.concepts import Concepts
from mhcvse_jax.data.scan_layout import ScanSplit, read_split
from mhcvse_jax.data.text import Vocabulary
from mhcvse_jax.errors import InputError
from mhcvse_jax.scenes import build as scenes


@dataclasses.dataclass(frozen=True)
class Split:
    """A split with its captions encoded. N pictures, T captions, C concepts."""

    name: str
    regions: np.ndarray  # <float>[rows, regions, features], memory-mapped
    rows: np.ndarray  # <int64>[N] the row of each picture
    captions: list[str]  # [T]
    tokens: np.ndarray  # <int32>[T, longest]
    lengths: np.ndarray  # <int32>[T]
    image_of_caption: np.ndarray  # <int32>[T]
    image_labels: np.ndarray  # <bool>[N, C] concepts in any caption of the picture
    caption_labels: np.ndarray  # <bool>[T, C] concepts in the caption's own words
    image_ids: list[str]  # [N]
    image_names: list[str] | None  # [N]

    @property
    def num_images(self) -> int:
        """Pictures."""
        return len(self.rows)

    @property
    def num_captions(self) -> int:
        """Captions."""
        return len(self.captions)


@dataclasses.dataclass(frozen=True)
class Language:
    """What was learned from the training captions before any training: all that encoding a caption needs."""

    vocabulary: Vocabulary
    concepts: Concepts
    concept_vectors: np.ndarray  # <float32>[C, width] H0
    remove_stop_words: bool

    def tokenize(self, caption: str) -> list[str]:
        """Returns the caption's tokens, without stop words where these are removed."""
        return tokenize(caption, self.remove_stop_words)

    def save(self, directory: pathlib.Path) -> None:
        """Writes vocabulary.json and concepts.npz."""
        self.vocabulary.save(directory / "vocabulary.json")
        self.concepts.save(directory / "concepts.npz")
        np.save(directory / "concept_vectors.npy", self.concept_vectors, allow_pickle=False)

    @classmethod
    def load(cls, directory: pathlib.Path, *, remove_stop_words: bool) -> "Language":
        """Returns what `save` wrote."""
        return cls(
            Vocabulary.load(directory / "vocabulary.json"),
            Concepts.load(directory / "concepts.npz"),
            np.load(directory / "concept_vectors.npy", allow_pickle=False),
            remove_stop_words,
        )


def tokenize(caption: str, remove_stop_words: bool) -> list[str]:
    """Returns the tokens of a caption, without function words if asked."""
    tokens = text.tokenize(caption)
    return [token for token in tokens if token not in text.stop_words()] if remove_stop_words else tokens


def encode_split(name: str, scan: ScanSplit, tokenized: Sequence[Sequence[str]], language: Language) -> Split:
    """Returns a split with its tokenised captions as ids and labels."""
    encoded = text.encode_captions(tokenized, language.vocabulary)
    caption_labels = concepts_lib.caption_labels(tokenized, language.concepts.words)
    captions_per_image = len(scan.captions) // scan.num_images
    return Split(
        name=name,
        regions=scan.regions,
        rows=scan.rows,
        captions=scan.captions,
        tokens=encoded.tokens,
        lengths=encoded.lengths,
        image_of_caption=np.repeat(np.arange(scan.num_images, dtype=np.int32), captions_per_image),
        image_labels=concepts_lib.image_labels(caption_labels, captions_per_image),
        caption_labels=caption_labels,
        image_ids=scan.image_ids,
        image_names=scan.image_names,
    )


def data_directory(config: ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the directory of the data; the built-in data set is made there unless it is there."""
    if config.data.format == "scenes":
        directory = pathlib.Path(config.data.dir or workdir / "scenes")
        scenes.write_scenes(directory, **config.data.scenes.to_dict())
        return directory
    if not config.data.dir:
        raise InputError("config.data.dir is empty; expected a directory in SCAN's layout")
    return pathlib.Path(config.data.dir)


def load_training(config: ConfigDict, directory: pathlib.Path) -> tuple[Split, Split, Language]:
    """Returns the training and the dev split, and the language learned from them.

    The vocabulary is built from the training and dev captions, concepts and graph from the training captions.
    """
    per_image = config.data.num_captions_per_image
    train, dev = (read_split(directory, split, per_image) for split in ("train", "dev"))
    check_width(dev, train.regions.shape, directory / "dev_ims.npy")
    remove = config.text.remove_stop_words
    train_tokens, dev_tokens = ([tokenize(c, remove) for c in split.captions] for split in (train, dev))
    language = learn_language(config, train_tokens, dev_tokens)
    return (
        encode_split("train", train, train_tokens, language),
        encode_split("dev", dev, dev_tokens, language),
        language,
    )


def load_split(
    directory: pathlib.Path, name: str, language: Language, *, captions_per_image: int, width: int | None = None
) -> Split:
    """Returns a split encoded with a language that exists.

    Raises:
      InputError: as `read_split`; or the features are not `width` wide.
    """
    scan = read_split(directory, name, captions_per_image)
    if width is not None:
        check_width(scan, (0, 0, width), directory / f"{name}_ims.npy")
    return encode_split(name, scan, [language.tokenize(caption) for caption in scan.captions], language)


def check_width(scan: ScanSplit, expected: tuple[int, ...], path: pathlib.Path) -> None:
    """Raises InputError where a split's features are not as wide as expected."""
    if scan.regions.shape[2] != expected[2]:
        raise InputError(f"{path}: features are {scan.regions.shape[2]} wide; expected {expected[2]}")


def learn_language(
    config: ConfigDict, train_tokens: Sequence[Sequence[str]], dev_tokens: Sequence[Sequence[str]]
) -> Language:
    """Returns vocabulary and concepts, from the captions or from the files that the configuration names."""
    if config.text.vocabulary_path:
        vocabulary = Vocabulary.load(pathlib.Path(config.text.vocabulary_path))
    else:
        vocabulary = Vocabulary.build([*train_tokens, *dev_tokens], config.text.min_count)
    values = config.concepts
    if values.words_path:
        concepts = concepts_lib.read_cvse_concepts(
            pathlib.Path(values.words_path), pathlib.Path(values.counts_path)
        )
        if len(concepts.words) != values.num:
            raise InputError(
                f"{values.words_path} has {len(concepts.words)} concepts; expected config.concepts.num, {values.num}"
            )
    else:
        concepts = concepts_lib.mine_concepts(train_tokens, values.num, values.shares, text.stop_words())
    if values.vectors_path:
        vectors = word_vectors.read_concept_vectors(
            pathlib.Path(values.vectors_path), concepts.words, values.vector_dim
        )
    else:
        vectors = word_vectors.unit_vectors(values.num, values.vector_dim, config.seed)
    return Language(vocabulary, concepts, vectors, config.text.remove_stop_words)


def graph_edges(concepts: Concepts, values: ConfigDict) -> concept_graph.Edges:
    """Returns the edges of the propagation matrix, by the numbers of `config.concepts`."""
    adjacency = concept_graph.adjacency(
        concepts.occurrences,
        concepts.cooccurrences,
        scale=values.scale,
        shift=values.shift,
        threshold=values.threshold,
        neighbour_weight=values.neighbour_weight,
    )
    return concept_graph.edges(concept_graph.propagation_matrix(adjacency))
