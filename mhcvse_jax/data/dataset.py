"""A data set as the model sees it: splits with token ids and concept labels, vocabulary, concept graph."""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.config import Config
from mhcvse_jax.data import concept_graph, scan_layout, text, word_vectors
from mhcvse_jax.data import concepts as concepts_lib
from mhcvse_jax.data.concepts import Concepts
from mhcvse_jax.data.regions import RegionFeatures
from mhcvse_jax.data.scan_layout import ScanSplit, check_widths
from mhcvse_jax.data.text import EncodedCaptions, Vocabulary
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.scenes import build as scenes
from mhcvse_jax.terminal.progress import counted


@dataclasses.dataclass(frozen=True)
class Split:
    """A split with its captions encoded. N pictures, T captions, C concepts."""

    name: str
    regions: RegionFeatures
    captions: list[str]  # [T]
    tokens: EncodedCaptions  # [T]
    image_of_caption: np.ndarray  # <int32>[T]
    image_labels: np.ndarray  # <bool>[N, C] concepts in any caption of the picture
    caption_labels: np.ndarray  # <bool>[T, C] concepts in the caption's own words
    image_ids: list[str]  # [N]
    image_names: list[str] | None  # [N]
    num_regions: np.ndarray | None = (
        None  # <int32>[N] the first of a picture's rows, which alone are regions; None: all
    )
    zero_regions_are_padding: bool = False  # trailing ones, where `num_regions` is None

    @property
    def lengths(self) -> np.ndarray:
        """<int32>[T] tokens of each caption."""
        return self.tokens.lengths

    @property
    def num_images(self) -> int:
        """Pictures."""
        return len(self.image_ids)

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
    bytes_literal: bool  # captions are read as `text.bytes_literal` writes them

    def keep(self, tokens: Sequence[str]) -> Sequence[str]:
        """Returns the tokens without stop words, where these are removed."""
        return without_stop_words(tokens) if self.remove_stop_words else tokens

    def save(self, directory: pathlib.Path) -> None:
        """Writes vocabulary.json, concepts.npz and concept_vectors.npy."""
        self.vocabulary.save(directory / "vocabulary.json")
        self.concepts.save(directory / "concepts.npz")
        with whole_file(directory / "concept_vectors.npy") as partial, partial.open("wb") as file:
            np.save(file, self.concept_vectors, allow_pickle=False)

    @classmethod
    def load(cls, directory: pathlib.Path, values: Config) -> "Language":
        """Returns what `save` wrote, to read captions as `config.text` says.

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
        return cls(vocabulary, concepts, vectors, values.remove_stop_words, values.bytes_literal)


def without_stop_words(tokens: Sequence[str]) -> tuple[str, ...]:
    """Returns the tokens that are not function words."""
    return tuple(itertools.filterfalse(text.stop_words().__contains__, tokens))


def encode_split(
    name: str,
    scan: ScanSplit,
    tokenized: Sequence[Sequence[str]],
    language: Language,
    *,
    zero_regions_are_padding: bool = False,
) -> Split:
    """Returns a split with its captions as ids and labels.

    A caption's own label comes from what the model is shown. CVSE's program looks for it in the literal of the
    caption's bytes too, without the `b` at its start; a picture's label it has from the clean captions.

    Args:
      name: of the split.
      scan: what its files hold.
      tokenized: all tokens of each caption.
      language: how captions are read.
      zero_regions_are_padding: where no file says how many regions a picture has.
    """
    clean = [language.keep(tokens) for tokens in tokenized]
    labels_of_clean = concepts_lib.caption_labels(clean, language.concepts.words)
    shown, caption_labels = clean, labels_of_clean
    if language.bytes_literal:
        literals = [text.bytes_literal(caption) for caption in scan.captions]
        shown = [language.keep(text.tokenize(literal)) for literal in literals]
        named = [language.keep(text.tokenize(literal.removeprefix("b"))) for literal in literals]
        caption_labels = concepts_lib.caption_labels(named, language.concepts.words)
    return Split(
        name=name,
        regions=scan.regions,
        captions=scan.captions,
        tokens=text.encode_captions(shown, language.vocabulary),
        image_of_caption=scan.image_of_caption,
        image_labels=concepts_lib.image_labels(labels_of_clean, scan.image_of_caption, scan.num_images),
        caption_labels=caption_labels,
        image_ids=scan.image_ids,
        image_names=scan.image_names,
        num_regions=scan.num_regions,
        zero_regions_are_padding=zero_regions_are_padding,
    )


def first_captions(split: Split, number: int, key: str = "eval.max_captions") -> Split:
    """Returns dev or test with no more than its first captions, whole pictures; another split, or for 0, as it is."""
    if not number or split.name not in ("dev", "test"):
        return split
    captions_up_to = np.cumsum(np.bincount(split.image_of_caption, minlength=split.num_images))
    num_images = int(np.searchsorted(captions_up_to, number, side="right"))
    if not num_images or not captions_up_to[num_images - 1]:
        needed = captions_up_to[captions_up_to > 0][0]
        raise InputError(f"config.{key} is {number}; expected 0 or at least the {needed} of a picture")
    captions = np.flatnonzero(split.image_of_caption < num_images)
    return dataclasses.replace(
        split,
        captions=[split.captions[caption] for caption in captions],
        tokens=split.tokens.chosen(captions),
        image_of_caption=split.image_of_caption[captions],
        image_labels=split.image_labels[:num_images],
        caption_labels=split.caption_labels[captions],
        image_ids=split.image_ids[:num_images],
        image_names=split.image_names and split.image_names[:num_images],
        num_regions=None if split.num_regions is None else split.num_regions[:num_images],
    )


def data_directory(config: Config, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the directory of the data; the built-in data set is made there unless it is there."""
    if config.data.format == "scenes":
        directory = pathlib.Path(config.data.dir or workdir / "scenes")
        if not directory.exists():
            print(f"scenes    drawing them in {directory}", flush=True)
        num_pictures = config.data.scenes.num_train + config.data.scenes.num_dev + config.data.scenes.num_test
        with counted(num_pictures, "picture") as done:
            scenes.write_scenes(directory, **config.data.scenes.to_dict(), picture_done=lambda: done(1))
        return directory
    if not config.data.dir:
        raise InputError("config.data.dir is empty; expected the directory of the data")
    return pathlib.Path(config.data.dir)


def read_split(values: Config, directory: pathlib.Path, name: str) -> ScanSplit:
    """Returns a split of a directory of the format in `config.data`.

    Raises:
      InputError: a file is missing, damaged or of another kind.
    """
    if values.format == "tfds":
        from mhcvse_jax.data import tfds  # here, as tensorflow-datasets takes half a second to import

        return tfds.read_split(directory, name, values.num_captions_per_image)
    if scan_layout.is_tfds(directory):
        raise InputError(f"{directory} is a tfds data set; expected data.format tfds, found {values.format}")
    return scan_layout.read_split(directory, name, values.num_captions_per_image)


class TrainingData(NamedTuple):
    """All that a training reads."""

    train: Split
    dev: Split
    language: Language
    concepts_found: int | None  # by the file of concept vectors, if the user brought one


def load_training(config: Config, directory: pathlib.Path, language: Language | None = None) -> TrainingData:
    """Returns the training and the dev split, and the language that they are read with.

    The vocabulary is built from the training and dev captions, concepts and graph from the training captions.

    Args:
      config: the whole configuration.
      directory: the data.
      language: what captions are read with; None: it is learned from these.

    Raises:
      InputError: a file is missing, damaged or of another kind, or a key asks for what they do not hold.
    """
    train, dev = (read_split(config.data, directory, split) for split in ("train", "dev"))
    check_widths(directory / "dev_ims.npy", dev.regions.shape, train.regions.shape)
    # Tuples of strings, unlike lists, are nothing that the garbage collector goes through again and again.
    train_tokens, dev_tokens = ([tuple(text.tokenize(c)) for c in split.captions] for split in (train, dev))
    concepts_found = None
    if language is None:
        language, concepts_found = learn_language(config, train_tokens, dev_tokens)
    padding = {"zero_regions_are_padding": config.data.zero_regions_are_padding}
    dev_split = encode_split("dev", dev, dev_tokens, language, **padding)
    for key in ("max_captions", "validation_captions"):
        dev_split = first_captions(dev_split, config.eval[key], f"eval.{key}")
    train_split = encode_split("train", train, train_tokens, language, **padding)
    return TrainingData(train_split, dev_split, language, concepts_found)


def load_split(directory: pathlib.Path, name: str, language: Language, values: Config) -> Split:
    """Returns a split encoded with a language that exists; `values` is `config.data`."""
    scan = read_split(values, directory, name)
    tokenized = [text.tokenize(caption) for caption in scan.captions]
    padding = values.zero_regions_are_padding
    return encode_split(name, scan, tokenized, language, zero_regions_are_padding=padding)


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
    return Language(vocabulary, concepts, vectors, config.text.remove_stop_words, config.text.bytes_literal), num_found


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
    """Returns the edges of the propagation matrix Â."""
    return concept_graph.edges(concept_graph.propagation_matrix(adjacency(concepts, values)))


def adjacency(concepts: Concepts, values: Config) -> np.ndarray:
    """Returns the weights A between concepts <float32>[C, C]: as they were given, or by `config.concepts`."""
    if concepts.adjacency is not None:
        return concepts.adjacency
    counted = concept_graph.adjacency(
        concepts.occurrences,
        concepts.cooccurrences,
        scale=values.scale,
        shift=values.shift,
        threshold=values.threshold,
        neighbour_weight=values.neighbour_weight,
    )
    return counted.astype(np.float32)  # as it is exported and imported: the same graph comes of both
