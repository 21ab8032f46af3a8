"""What models see in a picture of an index for given words: cosines and attention, for the page to draw."""

from typing import Any

import jax
import numpy as np

from mhcvse_jax.data.batches import padded_length
from mhcvse_jax.data.text import END, SPECIAL_TOKENS, START
from mhcvse_jax.experiment import parts
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.indexing.index import Index
from mhcvse_jax.indexing.reranking import Reranker
from mhcvse_jax.training.checkpoint import shapes

DIGITS = 4  # that the page is sent


class MapReader:
    """Reads the attention maps of one model; holds the compiled function, one per caption length."""

    def __init__(self, experiment: Experiment, variables: Any):
        """Takes a run and its restored variables."""
        self._experiment, self._variables = experiment, variables
        self._num_regions, _ = parts.trained_regions(shapes(variables))

        def maps(
            variables: Any, regions: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, num_regions: np.ndarray
        ) -> Any:
            return experiment.model.apply(
                variables, regions, tokens, lengths, num_regions=num_regions, method="attention_maps"
            )

        self._maps = jax.jit(maps)

    def words(self, text: str) -> list[str]:
        """Returns the tokens of a text as the model reads them, `<start>` and `<end>` among them."""
        return [SPECIAL_TOKENS[START], *self._experiment.language.shown(text), SPECIAL_TOKENS[END]]

    def known(self, text: str) -> list[bool]:
        """Returns which of `words` the model knows."""
        return [word in self._experiment.language.vocabulary for word in self.words(text)]

    def __call__(self, features: np.ndarray, text: str) -> dict[str, np.ndarray]:
        """Returns what `AttentionMaps` has of one picture and one text, without batch axis and padding.

        Args:
          features: <float32>[regions, features] of the picture.
          text: the words.
        """
        tokens, _ = self._experiment.language.read([text])
        (num_words,), num_regions = tokens.lengths, len(features)
        # Few shapes, so few compilations. A model that keeps statistics by region has a number of its own.
        rows = self._num_regions if self._num_regions > 1 else 1 << (num_regions - 1).bit_length()
        padded = np.zeros((1, rows, features.shape[1]), np.float32)
        padded[0, :num_regions] = features
        length = padded_length(num_words, self._experiment.config.data.caption_lengths)
        inputs = padded, tokens.padded(np.array([0]), length), tokens.lengths, np.array([num_regions], np.int32)
        found = self._maps(self._variables, *inputs)
        heads, regions, words = slice(None), slice(num_regions), slice(num_words)
        own = {
            "regions": (regions,),
            "words": (words,),
            "image": (heads, regions, regions),
            "text": (heads, words, words),
            "image_pooling": (heads, slice(1), regions),
            "text_pooling": (heads, slice(1), words),
            "text_to_image": (heads, words, regions),
            "image_to_text": (heads, regions, words),
        }
        return {
            name: np.asarray(values[0])[own[name]] for name, values in found._asdict().items() if values is not None
        }


class Explainer:
    """Explains pictures of an index, by its own model and by the one that re-ranks, where there is one."""

    def __init__(self, index: Index, reranker: Reranker | None = None):
        """Takes the index, whose model is loaded when the first picture is explained, and what re-ranks."""
        self._index, self._reranker = index, reranker
        self._reader: MapReader | None = None
        self._pair_reader = MapReader(reranker.experiment, reranker.variables) if reranker else None

    def __call__(self, place: int, text: str) -> dict[str, Any]:
        """Returns how a picture and a text relate, ready for JSON.

        `words` are the tokens as the model reads them, `<start>` and `<end>` among them, and `known` which of them it
        knows; `boxes` are the regions' [x1, y1, x2, y2] in pixels of a picture of `size`, and `shows` is what the
        detector says of each, None where the index has none; `cosines` is [words][regions]; `maps` holds those of
        `AttentionMaps` that the model has, each [heads][rows][columns]; `score` is the cosine of the whole picture and
        the whole text. `pair` has `model`, `words`, `maps`, `layers` and `score` of the model that re-ranks, whose
        heads are those of all layers in turn.

        Args:
          place: the picture's place in the index.
          text: the words.

        Raises:
          InputError: the text cannot be used, or the picture's features are gone.
        """
        model, picture = self._index.model, self._index.pictures[place]
        model.check_query(text)
        if self._reader is None:
            self._reader = MapReader(model.experiment, model.variables)
        features = self._index.regions(place)
        maps = self._reader(features, text)
        cosines = maps.pop("words") @ maps.pop("regions").T
        (score,) = self._index.vectors([place]) @ model.encode_texts([text])[0]
        boxes = picture.boxes
        return {
            "id": picture.id,
            "captions": picture.captions,
            "score": round(float(score), DIGITS),
            "size": picture.size,
            "boxes": None if boxes is None else boxes[: len(features)].round(1).tolist(),
            "shows": picture.shows,
            "words": self._reader.words(text),
            "known": self._reader.known(text),
            "cosines": _rounded(cosines),
            "maps": {name: _rounded(values) for name, values in maps.items()},
            "pair": self._pair(features, text),
        }

    def _pair(self, features: np.ndarray, text: str) -> dict[str, Any] | None:
        if self._reranker is None or self._pair_reader is None:
            return None
        (score,) = self._reranker.scores([features], [text], np.zeros((1, 2), int))
        maps = self._pair_reader(features, text)
        return {
            "model": self._reranker.name,
            "score": round(float(score), DIGITS),
            "words": self._pair_reader.words(text),
            "layers": getattr(self._reranker.experiment.model, "cross_layers", 1),
            "maps": {name: _rounded(values) for name, values in maps.items() if name not in ("regions", "words")},
        }


def _rounded(values: np.ndarray) -> list:
    return np.round(values.astype(np.float64), DIGITS).tolist()
