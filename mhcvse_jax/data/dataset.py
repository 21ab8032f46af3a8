"""A data set as the model sees it: splits with token ids and concept labels, vocabulary, concept graph."""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from mhcvse_jax.config import Config
from mhcvse_jax.data import concept_graph, text, word_vectors
from mhcvse_jax.data import concepts as concepts_lib
from mhcvse_jax.data.concepts import Concepts
from mhcvse_jax.data.scan_layout import ScanSplit, check_widths, read_split
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

    def tokenize(self, caption: str) -> Sequence[str]:
        """Returns the caption's tokens, without stop words where these are removed."""
        return self.keep(text.tokenize(caption))

    def keep(self, tokens: Sequence[str]) -> Sequence[str]:
        """Returns the tokens that the model is shown."""
        return without_stop_words(tokens) if self.remove_stop_words else tokens

    def save(self, directory: pathlib.Path) -> None:
        """Writes vocabulary.json, concepts.npz and concept_vectors.npy."""
        self.vocabulary.save(directory / "vocabulary.json")
        self.concepts.save(directory / "concepts.npz")
        np.save(directory / "concept_vectors.npy", self.concept_vectors, allow_pickle=False)

    @classmethod
    def load(cls, directory: pathlib.Path, *, remove_stop_words: bool) -> "Language":
        """Returns what `save` wrote.

        Raises:
          InputError: a file is missing or damaged.
        """
        vocabulary = Vocabulary.load(directory / "vocabulary.json")
        concepts = Concepts.load(directory / "concepts.npz")
        path = directory / "concept_vectors.npy"
        try:
            vectors = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: not a whole .npy file ({error})") from error
        return cls(vocabulary, concepts, vectors, remove_stop_words)


def without_stop_words(tokens: Sequence[str]) -> list[str]:
    """Returns the tokens that are not function words."""
    return list(itertools.filterfalse(text.stop_words().__contains__, tokens))


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


def data_directory(config: Config, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the directory of the data; the built-in data set is made there unless it is there."""
    if config.data.format == "scenes":
        directory = pathlib.Path(config.data.dir or workdir / "scenes")
        if not directory.exists():
            print(f"scenes    drawing them in {directory}", flush=True)
        num_pictures = config.data.scenes.num_train + config.data.scenes.num_dev + config.data.scenes.num_test
        with tqdm.tqdm(total=num_pictures, desc="drawing scenes", unit="picture", disable=None, leave=False) as bar:
            scenes.write_scenes(directory, **config.data.scenes.to_dict(), progress=lambda done, total: bar.update())
        return directory
    if not config.data.dir:
        raise InputError("config.data.dir is empty; expected a directory in SCAN's layout")
    return pathlib.Path(config.data.dir)


class TrainingData(NamedTuple):
    """All that a training reads."""

    train: Split
    dev: Split
    language: Language
    concepts_found: int | None  # by the file of concept vectors, if the user brought one


def load_training(config: Config, directory: pathlib.Path) -> TrainingData:
    """Returns the training and the dev split, and the language learned from them.

    The vocabulary is built from the training and dev captions, concepts and graph from the training captions.
    """
    per_image = config.data.num_captions_per_image
    train, dev = (read_split(directory, split, per_image) for split in ("train", "dev"))
    check_widths(directory / "dev_ims.npy", dev.regions, train.regions)
    train_tokens, dev_tokens = ([text.tokenize(c) for c in split.captions] for split in (train, dev))
    language, concepts_found = learn_language(config, train_tokens, dev_tokens)
    return TrainingData(
        encode_split("train", train, [language.keep(tokens) for tokens in train_tokens], language),
        encode_split("dev", dev, [language.keep(tokens) for tokens in dev_tokens], language),
        language,
        concepts_found,
    )


def load_split(directory: pathlib.Path, name: str, language: Language, *, captions_per_image: int) -> Split:
    """Returns a split encoded with a language that exists."""
    scan = read_split(directory, name, captions_per_image)
    return encode_split(name, scan, [language.tokenize(caption) for caption in scan.captions], language)


def learn_language(
    config: Config, train_tokens: Sequence[Sequence[str]], dev_tokens: Sequence[Sequence[str]]
) -> tuple[Language, int | None]:
    """Returns vocabulary and concepts, and how many concepts the user's vectors cover (None: they are random).

    Args:
      config: the whole configuration; it may name files to take these from.
      train_tokens: every token of the training captions: stop words tell the parts of speech of their neighbours.
      dev_tokens: likewise of the dev captions, for the vocabulary alone.
    """
    values = config.concepts
    concepts = find_concepts(values, train_tokens)
    vectors = word_vectors.unit_vectors(values.num, values.vector_dim, config.seed)
    num_found = None
    if values.vectors_path:
        brought = word_vectors.read_concept_vectors(values.vectors_path, concepts.words, values.vector_dim)
        vectors = np.where(brought.found[:, None], brought.vectors, vectors)
        num_found = int(brought.found.sum())
    vocabulary = find_vocabulary(config.text, [*train_tokens, *dev_tokens])
    return Language(vocabulary, concepts, vectors, config.text.remove_stop_words), num_found


def find_vocabulary(values: Config, captions: Sequence[Sequence[str]]) -> Vocabulary:
    """Returns the vocabulary of the captions, or of the file in `config.text`."""
    if values.vocabulary_path:
        return Vocabulary.load(pathlib.Path(values.vocabulary_path))
    stop_words = text.stop_words() if values.remove_stop_words else ()
    return Vocabulary.build(captions, values.min_count, stop_words)


def find_concepts(values: Config, captions: Sequence[Sequence[str]]) -> Concepts:
    """Returns the concepts of the training captions, or of the files in `config.concepts`."""
    if not values.words_path:
        return concepts_lib.mine_concepts(captions, values.num, values.shares, text.stop_words())
    concepts = concepts_lib.read_cvse_concepts(values.words_path, values.counts_path)
    if len(concepts.words) != values.num:
        raise InputError(
            f"{values.words_path} has {len(concepts.words)} concepts; expected config.concepts.num, {values.num}"
        )
    return concepts


def graph_edges(concepts: Concepts, values: Config) -> concept_graph.Edges:
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
