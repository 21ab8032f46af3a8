"""Reads what a configuration names: the data set, and the vocabulary and concepts, whether learned or given."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.config import Config
from mhcvse_jax.data import concept_graph, dataset, text, word_vectors
from mhcvse_jax.data import concepts as concepts_lib
from mhcvse_jax.data.concepts import Concepts
from mhcvse_jax.data.dataset import Language, Split
from mhcvse_jax.data.scan_layout import ScanSplit, check_widths
from mhcvse_jax.data.text import Vocabulary
from mhcvse_jax.errors import InputError
from mhcvse_jax.terminal.progress import counted


def data_directory(config: Config, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the data directory; the built-in data set is drawn if it is missing."""
    if config.data.format == "scenes":
        from mhcvse_jax.scenes import build as scenes  # here, as a search never draws

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


def load_language(directory: pathlib.Path, config: Config) -> Language:
    """Returns the language that a workdir holds, to read captions as `config.text` says."""
    values = config.text
    return Language.load(directory, remove_stop_words=values.remove_stop_words, bytes_literal=values.bytes_literal)


class TrainingData(NamedTuple):
    """Everything that a training run reads."""

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
    train, dev = (read_scan(config.data, directory, split) for split in ("train", "dev"))
    for name, split in (("train", train), ("dev", dev)):
        if not split.captions:
            raise InputError(f"{directory}: {name} has no captions; expected one or more to learn from")
    check_widths(directory / "dev_ims.npy", dev.regions.shape, train.regions.shape)
    # Tuples: the garbage collector scans lists of strings again and again, but not tuples of them.
    train_tokens, dev_tokens = ([tuple(text.tokenize(c)) for c in split.captions] for split in (train, dev))
    concepts_found = None
    if language is None:
        language, concepts_found = learn_language(config, train_tokens, dev_tokens)
    padding = {"zero_regions_are_padding": config.data.zero_regions_are_padding}
    dev_split = dataset.encode_split("dev", dev, dev_tokens, language, **padding)
    for key in ("max_captions", "validation_captions"):
        dev_split = dataset.first_captions(dev_split, config.eval[key], f"eval.{key}")
    train_split = dataset.encode_split("train", train, train_tokens, language, **padding)
    return TrainingData(train_split, dev_split, language, concepts_found)


def load_split(directory: pathlib.Path, name: str, language: Language, values: Config) -> Split:
    """Returns a split encoded with a given language; `values` is `config.data`."""
    scan = read_scan(values, directory, name)
    tokenized = [text.tokenize(caption) for caption in scan.captions]
    padding = values.zero_regions_are_padding
    return dataset.encode_split(name, scan, tokenized, language, zero_regions_are_padding=padding)


def read_scan(values: Config, directory: pathlib.Path, name: str) -> ScanSplit:
    """Returns what the files of a split hold; `values` is `config.data`."""
    return dataset.read_split(directory, name, layout=values.format, captions_per_image=values.num_captions_per_image)


def learn_language(
    config: Config, train_tokens: Sequence[Sequence[str]], dev_tokens: Sequence[Sequence[str]]
) -> tuple[Language, int | None]:
    """Returns vocabulary and concepts, and how many concepts the user's vectors cover (None: they are random).

    A model that has no use for concepts has none, whatever the captions hold.

    Args:
      config: the whole configuration; it may name files to take these from.
      train_tokens: every token of the training captions: stop words tell the parts of speech of their neighbours.
      dev_tokens: the same of the dev captions, for the vocabulary alone.
    """
    values = config.concepts
    from mhcvse_jax import models  # here, as it brings in JAX, which a sweep and a check do without

    has_concepts = models.has_concepts(config.model.name)
    concepts = find_concepts(values, train_tokens) if has_concepts else concepts_lib.no_concepts()
    vectors = word_vectors.unit_vectors(len(concepts.words), values.vector_dim, config.seed)
    num_found = None
    if values.vectors_path and has_concepts:
        brought = word_vectors.read_concept_vectors(values.vectors_path, concepts.words, values.vector_dim, config.seed)
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
    return counted.astype(np.float32)  # float32, as exported, so that a re-imported model has the same graph
