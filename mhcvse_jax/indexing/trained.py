"""A trained model, ready to encode new texts, region features and picture files."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mhcvse_jax.data import feature_source
from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.data.lines import MAX_CAPTION
from mhcvse_jax.data.text import EncodedCaptions
from mhcvse_jax.devices.compilation import keep_compiled
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation.protocols import compared
from mhcvse_jax.experiment import parts
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.indexing import picture_encoder
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.precompute.regions import Regions
from mhcvse_jax.retrieval.encode import Encoder, ReadRegions
from mhcvse_jax.training.checkpoint import shapes

PictureFile = str | os.PathLike[str] | np.ndarray
"""A file, or its pixels, RGB, <uint8>[height, width, 3]."""


class TrainedModel:
    """The best checkpoint of a run, which turns texts and pictures into vectors that can be compared.

    Attributes:
      workdir: the workdir of the run.
      experiment: its configuration, language, model and devices.
      variables: the model's `params` and `batch_stats`.
      source: what makes region features of a picture; None where neither the run nor the caller says it.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        source: FeatureSource | None = None,
        encoder_weights: pathlib.Path | None = None,
        check: bool = True,
    ):
        """Takes the parts of a run and restores its best checkpoint; see `load`."""
        if not isinstance(experiment.encoder, Encoder):
            raise InputError(
                f"{experiment.workdir} holds {experiment.config.model.name}, which scores pairs and has no vectors; "
                "expected mhcvse, cvse or vsepp"
            )
        self.workdir, self.experiment = experiment.workdir, experiment
        self._encoder = experiment.encoder
        self.variables, self.progress = experiment.restore_best(check=check)
        self.source = feature_source.read(self.workdir) or source
        self._encoder_weights = encoder_weights

    @property
    def name(self) -> str:
        """The model's, mhcvse for example."""
        return self.experiment.config.model.name

    @functools.cached_property
    def regions_shape(self) -> tuple[int, ...]:
        """(regions, features) of a picture as it was trained on; 1 region where any number will do."""
        return parts.trained_regions(shapes(self.variables))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that vectors depend on: parameters, vocabulary, concepts, and how texts are read.

        Of the configuration it takes what the run saved, so that a key that a later version of the program adds, and
        which means there what was done before, does not make it another model.
        """
        digest, language, config = hashlib.sha256(), self.experiment.language, self.experiment.config
        saved = json.loads((self.workdir / "config.json").read_text(encoding="utf-8"))["model"]
        facts = (
            saved,
            (config.text.remove_stop_words, config.text.bytes_literal, config.eval.consensus_weight),
            (language.vocabulary.words, language.concepts.words),
        )
        digest.update(json.dumps(facts, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path((self.variables, self.experiment.graph)):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def width(self) -> int:
        """D, the numbers of a vector."""
        weight = self.experiment.config.eval.consensus_weight
        return self.experiment.config.model.embedding_dim * (2 if weight else 1)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns <float32>[texts, D], unit vectors. A word that the vocabulary lacks is read as `<unk>`.

        Raises:
          InputError: a text is empty, or longer than `MAX_CAPTION` characters.
        """
        if isinstance(texts, str):
            raise TypeError("encode_texts takes a list of texts; expected [text]")
        for number, text in enumerate(texts):
            check_text(text, f"text {number}")
        if not len(texts):
            return np.zeros((0, self.width), np.float32)
        return self.encode_tokens(*self.experiment.language.read(texts))

    def encode_images(
        self, images: np.ndarray | Sequence[PictureFile], num_regions: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns <float32>[images, D], unit vectors.

        Args:
          images: region features <float>[images, regions, features] as the model was trained on; or files of pictures,
            of which the encoder that made the run's features makes regions.
          num_regions: <int>[images], how many of a picture's rows are regions; None: all. For features only.

        Raises:
          InputError: a file cannot be read, the encoder is not known, or the features have another width.
        """
        if not len(images):
            return np.zeros((0, self.width), np.float32)
        if not isinstance(images, np.ndarray):
            images, num_regions = picture_encoder.padded(self.read_regions(images))
        self.check_regions(images.shape[1:], "the features")
        features = np.asarray(images, np.float32)
        if not np.isfinite(features).all():
            raise InputError("the features are not all finite; expected numbers")
        if num_regions is not None:
            num_regions = np.asarray(num_regions, np.int32)
            features = np.where((np.arange(features.shape[1]) < num_regions[:, None])[..., None], features, 0.0)

        def read(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            return features[chosen], None if num_regions is None else num_regions[chosen]

        return self.encode_with(read, len(features))

    def encode_tokens(self, tokens: EncodedCaptions, labels: np.ndarray) -> np.ndarray:
        """Returns <float32>[texts, D] of texts that were read: their ids, and labels <bool>[texts, concepts]."""
        return self._vectors(self._encoder.texts(self.variables, tokens, labels))

    def encode_with(self, read: ReadRegions, num_images: int) -> np.ndarray:
        """Returns <float32>[images, D] of pictures whose regions `read` gives, batch after batch."""
        return self._vectors(self._encoder.images(self.variables, read, num_images))

    def read_regions(self, files: Sequence[PictureFile]) -> list[Regions]:
        """Returns the regions of pictures, by the encoder that made the features of the run.

        Raises:
          InputError: a file cannot be read, or the encoder or its weights are not available.
        """
        pictures = [picture_encoder.read(file) for file in files]
        return self._picture_encoder.encode(pictures)

    def similarity(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Returns <float32>[images, texts], cosines, from vectors [images, D] and [texts, D]; higher is more alike."""
        return np.asarray(images, np.float32) @ np.asarray(texts, np.float32).T

    def unknown_words(self, text: str) -> list[str]:
        """Returns the words of a text that the vocabulary lacks, each once."""
        language = self.experiment.language
        return [word for word in language.words(text) if is_word(word) and word not in language.vocabulary]

    def check_query(self, text: str) -> None:
        """Raises InputError where a text is empty, too long, or has no word that the vocabulary has."""
        check_text(text, "the query")
        language = self.experiment.language
        if not any(is_word(word) and word in language.vocabulary for word in language.words(text)):
            shown = text if len(text) <= 80 else f"{text[:77]}..."
            raise InputError(f"{shown!r} has no word that the vocabulary of {self.workdir} has; expected at least one")

    def check_regions(self, shape: Sequence[int], what: str) -> None:
        """Raises InputError where features of this shape, (regions, features), are not what the model takes."""
        regions, features = self.regions_shape
        if tuple(shape[1:]) != (features,) or (regions > 1 and shape[0] != regions):
            expected = f"[pictures, {regions if regions > 1 else 'regions'}, {features}]"
            found = ", ".join(map(str, ("pictures", *shape)))
            raise InputError(f"{what} are [{found}]; expected {expected}, as {self.workdir} was trained on")

    def _vectors(self, embeddings: Embeddings) -> np.ndarray:
        """Returns <float32>[items, D], of embeddings what is compared.

        Raises:
          InputError: a vector is not finite: the checkpoint is useless.
        """
        found = np.asarray(compared(embeddings, "fused", self.experiment.config.eval.consensus_weight))
        if not np.isfinite(found).all():
            raise InputError(f"{self.workdir}: its model's vectors are not finite; expected a sound checkpoint")
        return found

    @functools.cached_property
    def _picture_encoder(self) -> Any:
        if self.source is None:
            raise InputError(
                f"{self.workdir} does not say which encoder made its features (no {feature_source.FILE}); expected a "
                "run on a directory of `mhcvse extract`, or region features"
            )
        return picture_encoder.of_source(self.source, self._encoder_weights)


def load(
    workdir: str | os.PathLike[str],
    *,
    source: FeatureSource | None = None,
    encoder_weights: str | os.PathLike[str] | None = None,
    check: bool = True,
) -> TrainedModel:
    """Returns the best checkpoint of a run, ready to encode texts and pictures.

    Args:
      workdir: what `mhcvse train` wrote.
      source: what made the features that the run was trained on, where its features.json does not say it.
      encoder_weights: the file of the picture encoder's weights, if no package provides them.
      check: whether the checkpoint is compared with the model that the configuration describes. An index does without:
        the fingerprint tells it whether this is its model.

    Raises:
      InputError: the workdir has no checkpoint, is damaged, or holds a model that scores pairs.
    """
    keep_compiled()
    experiment = Experiment.of_workdir(pathlib.Path(workdir), protocol="standard")
    weights = None if encoder_weights is None else pathlib.Path(encoder_weights)
    return TrainedModel(experiment, source=source, encoder_weights=weights, check=check)


def check_text(text: str, what: str) -> None:
    """Raises InputError where a text is empty or too long, naming what it is."""
    if not text.strip():
        raise InputError(f"{what} is empty; expected words")
    if len(text) > MAX_CAPTION:
        raise InputError(f"{what} has {len(text):,} characters; expected {MAX_CAPTION:,} at most")


def is_word(token: str) -> bool:
    """Returns whether a token is more than punctuation."""
    return any(letter.isalnum() for letter in token)
