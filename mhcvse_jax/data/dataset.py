"""A data set as the model sees it: splits with token ids and concept labels, and the language that they are read in."""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.data import concepts as concepts_lib
from mhcvse_jax.data import scan_layout, text
from mhcvse_jax.data.concepts import Concepts
from mhcvse_jax.data.regions import ChosenRegions, RegionFeatures
from mhcvse_jax.data.scan_layout import ScanSplit
from mhcvse_jax.data.text import EncodedCaptions, Vocabulary
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.whole import whole_file


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


class CaptionsRead(NamedTuple):
    """Captions as a model takes them. T captions, C concepts."""

    tokens: EncodedCaptions  # [T]
    labels: np.ndarray  # <bool>[T, C] concepts in the caption's own words


class UnknownWords(NamedTuple):
    """What a vocabulary lacks for some captions: a model reads the same token for all of it."""

    words: int  # of all captions
    unknown: int  # of these, not in the vocabulary
    distinct: int  # that differ from each other, of these
    captions: int  # that have one or more
    most_frequent: list[str]  # five at most

    def describe(self) -> str:
        """Returns a description on one line."""
        share = 100 * self.unknown / max(self.words, 1)
        such_as = f" ({self.distinct:,} different, {', '.join(self.most_frequent)} the most frequent)"
        return (
            f"unknown   {share:.2f}% of {self.words:,} words{such_as if self.distinct else ''}, "
            f"in {self.captions:,} captions"
        )


@dataclasses.dataclass(frozen=True)
class Language:
    """What is learned from the training captions before training: everything needed to encode a caption."""

    vocabulary: Vocabulary
    concepts: Concepts
    concept_vectors: np.ndarray  # <float32>[C, width] H0
    remove_stop_words: bool
    bytes_literal: bool  # captions are read as `text.bytes_literal` writes them

    def keep(self, tokens: Sequence[str]) -> Sequence[str]:
        """Returns the tokens, without stop words if these are removed."""
        return without_stop_words(tokens) if self.remove_stop_words else tokens

    def read(self, captions: Sequence[str], tokenized: Sequence[Sequence[str]] | None = None) -> CaptionsRead:
        """Returns captions as ids and labels; what the vocabulary lacks is `<unk>`.

        A caption's label comes from what the model is shown. CVSE's program looks for it in the literal of the
        caption's bytes too, without the `b` at its start.

        Args:
          captions: any texts.
          tokenized: all tokens of each, if they are known.
        """
        if self.bytes_literal:
            shown = [self.shown(caption) for caption in captions]
            literals = [text.bytes_literal(caption) for caption in captions]
            named = [self.keep(text.tokenize(literal.removeprefix("b"))) for literal in literals]
        else:
            shown = named = [self.keep(tokens) for tokens in tokenized or map(text.tokenize, captions)]
        labels = concepts_lib.caption_labels(named, self.concepts.words)
        return CaptionsRead(text.encode_captions(shown, self.vocabulary), labels)

    def shown(self, caption: str) -> Sequence[str]:
        """Returns the tokens of a caption that the model is shown, between `<start>` and `<end>`."""
        return self.keep(text.tokenize(text.bytes_literal(caption) if self.bytes_literal else caption))

    def words(self, caption: str) -> list[str]:
        """Returns the tokens of a caption that are read, each once, in their order."""
        return [*dict.fromkeys(self.keep(text.tokenize(caption)))]

    def unknown_words(self, captions: Sequence[str]) -> "UnknownWords":
        """Returns what of these captions the vocabulary lacks."""
        shown = [self.shown(caption) for caption in captions]
        unknown = [[word for word in words if word not in self.vocabulary] for words in shown]
        times = collections.Counter(itertools.chain.from_iterable(unknown))
        return UnknownWords(
            words=sum(map(len, shown)),
            unknown=times.total(),
            distinct=len(times),
            captions=sum(map(bool, unknown)),
            most_frequent=[word for word, _ in times.most_common(5)],
        )

    def save(self, directory: pathlib.Path) -> None:
        """Writes vocabulary.json, concepts.npz and concept_vectors.npy."""
        self.vocabulary.save(directory / "vocabulary.json")
        self.concepts.save(directory / "concepts.npz")
        with whole_file(directory / "concept_vectors.npy") as partial, partial.open("wb") as file:
            np.save(file, self.concept_vectors, allow_pickle=False)

    @classmethod
    def load(cls, directory: pathlib.Path, *, remove_stop_words: bool, bytes_literal: bool) -> "Language":
        """Returns what `save` wrote, to read captions in this way.

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
        return cls(vocabulary, concepts, vectors, remove_stop_words, bytes_literal)


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
    """Returns a split with its captions as ids and labels; a picture's label comes from the clean captions.

    Args:
      name: the name of the split.
      scan: what its files hold.
      tokenized: all tokens of each caption.
      language: how captions are read.
      zero_regions_are_padding: whether rows of zeros are padding, if no file says how many regions a picture has.
    """
    read = language.read(scan.captions, tokenized)
    labels_of_clean = read.labels
    if language.bytes_literal:
        labels_of_clean = concepts_lib.caption_labels([language.keep(t) for t in tokenized], language.concepts.words)
    return Split(
        name=name,
        regions=scan.regions,
        captions=scan.captions,
        tokens=read.tokens,
        image_of_caption=scan.image_of_caption,
        image_labels=concepts_lib.image_labels(labels_of_clean, scan.image_of_caption, scan.num_images),
        caption_labels=read.labels,
        image_ids=scan.image_ids,
        image_names=scan.image_names,
        num_regions=scan.num_regions,
        zero_regions_are_padding=zero_regions_are_padding,
    )


def first_captions(split: Split, number: int, key: str = "eval.max_captions") -> Split:
    """Returns dev or test limited to its first `number` captions (entire pictures); other splits, and 0: unchanged."""
    if not number or split.name not in ("dev", "test"):
        return split
    captions_up_to = np.cumsum(np.bincount(split.image_of_caption, minlength=split.num_images))
    num_images = int(np.searchsorted(captions_up_to, number, side="right"))
    if not num_images or not captions_up_to[num_images - 1]:
        needed = captions_up_to[captions_up_to > 0][0]
        raise InputError(f"config.{key} is {number}; expected 0 or at least the {needed} of a picture")
    return first_images(split, num_images)


def first_images(split: Split, num_images: int) -> Split:
    """Returns a split limited to its first pictures and their captions."""
    return chosen_pictures(split, np.arange(num_images))


def some_captions(split: Split, number: int) -> Split:
    """Returns about this many captions of a split, evenly spaced, and their pictures; 0: the whole split."""
    if not number or number >= split.num_captions:
        return split
    num_images = max(1, round(number * split.num_images / split.num_captions))
    return chosen_pictures(split, np.linspace(0, split.num_images - 1, num_images).round().astype(int))


def chosen_pictures(split: Split, images: np.ndarray) -> Split:
    """Returns a split of only these pictures, <int>[images], each once, and their captions."""
    place = np.full(split.num_images, -1, np.int32)
    place[images] = np.arange(len(images))
    captions = np.flatnonzero(place[split.image_of_caption] >= 0)
    names = split.image_names
    return dataclasses.replace(
        split,
        regions=ChosenRegions(split.regions, images),
        captions=[split.captions[caption] for caption in captions],
        tokens=split.tokens.chosen(captions),
        image_of_caption=place[split.image_of_caption[captions]],
        image_labels=split.image_labels[images],
        caption_labels=split.caption_labels[captions],
        image_ids=[split.image_ids[image] for image in images],
        image_names=names and [names[image] for image in images],
        num_regions=None if split.num_regions is None else split.num_regions[images],
    )


def read_split(directory: pathlib.Path, name: str, *, layout: str, captions_per_image: int) -> ScanSplit:
    """Returns a split of a directory in a layout: "scan", "tfds" or "scenes".

    Raises:
      InputError: a file is missing, damaged or of another kind.
    """
    if layout == "tfds":
        from mhcvse_jax.data import tfds  # here, as tensorflow-datasets takes half a second to import

        return tfds.read_split(directory, name, captions_per_image)
    if scan_layout.is_tfds(directory):
        raise InputError(f"{directory} is a tfds data set; expected data.format tfds, found {layout}")
    return scan_layout.read_split(directory, name, captions_per_image)
