"""What a model sees in a picture of an index, given some words: cosines and attention, for the page to draw."""

from typing import Any

import jax
import numpy as np

from mhcvse_jax.data.batches import padded_length
from mhcvse_jax.data.text import END, SPECIAL_TOKENS, START
from mhcvse_jax.indexing.index import Index

DIGITS = 4  # that the page is sent


class Explainer:
    """Explains pictures of an index; holds the compiled function, one a caption length."""

    def __init__(self, index: Index):
        """Takes the index; its model is loaded when the first picture is explained."""
        self._index = index

        def maps(
            variables: Any, regions: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, num_regions: np.ndarray
        ) -> Any:
            model = index.model.experiment.model
            return model.apply(variables, regions, tokens, lengths, num_regions=num_regions, method="attention_maps")

        self._maps = jax.jit(maps)

    def __call__(self, place: int, text: str) -> dict[str, Any]:
        """Returns what a picture and a text say of each other, ready for JSON.

        `words` are the tokens as the model reads them, `<start>` and `<end>` among them, and `known` which of them it
        knows; `boxes` are the regions' [x1, y1, x2, y2] in pixels of a picture of `size`, None where the index has
        none; `cosines` is [words][regions]; `maps` holds those of `AttentionMaps` that the model has, each
        [heads][rows][columns]; `score` is the cosine of the whole picture and the whole text.

        Args:
          place: of the picture in the index.
          text: the words.

        Raises:
          InputError: the text cannot be used, or the picture's features are gone.
        """
        model, picture = self._index.model, self._index.pictures[place]
        model.check_query(text)
        language = model.experiment.language
        words = [SPECIAL_TOKENS[START], *language.shown(text), SPECIAL_TOKENS[END]]
        features = self._index.regions(place)
        maps = self._found(features, text)
        cosines = maps.pop("words") @ maps.pop("regions").T
        (score,) = self._index.vectors([place]) @ model.encode_texts([text])[0]
        boxes = picture.boxes
        return {
            "id": picture.id,
            "captions": picture.captions,
            "score": round(float(score), DIGITS),
            "size": picture.size,
            "boxes": None if boxes is None else boxes[: len(features)].round(1).tolist(),
            "words": words,
            "known": [word in language.vocabulary for word in words],
            "cosines": _rounded(cosines),
            "maps": {name: _rounded(values) for name, values in maps.items()},
        }

    def _found(self, features: np.ndarray, text: str) -> dict[str, np.ndarray]:
        """Returns what `AttentionMaps` has of one picture and one text, without batch axis and padding."""
        model = self._index.model
        tokens, _ = model.experiment.language.read([text])
        (num_words,), num_regions = tokens.lengths, len(features)
        # Few shapes, so few compilations. A model that keeps statistics by region has a number of its own.
        rows = model.regions_shape[0] if model.regions_shape[0] > 1 else 1 << (num_regions - 1).bit_length()
        padded = np.zeros((1, rows, features.shape[1]), np.float32)
        padded[0, :num_regions] = features
        length = padded_length(num_words, model.experiment.config.data.caption_lengths)
        inputs = padded, tokens.padded(np.array([0]), length), tokens.lengths, np.array([num_regions], np.int32)
        found = self._maps(model.variables, *inputs)
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


def _rounded(values: np.ndarray) -> list:
    return np.round(values.astype(np.float64), DIGITS).tolist()
