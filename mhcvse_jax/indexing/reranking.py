"""The first results, reordered by a model that scores pairs of a picture and a text."""

import pathlib
from collections.abc import Sequence

import numpy as np

from mhcvse_jax.data import feature_source
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.data.regions import MappedRegions
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.indexing import picture_encoder
from mhcvse_jax.indexing.index import Hit, Index
from mhcvse_jax.precompute.regions import Regions
from mhcvse_jax.retrieval.pairs import PairScorer

TOP_K = 100  # of a query's answers that are scored


class Reranker:
    """The best checkpoint of a run whose model scores pairs.

    Attributes:
      name: the model's name, scan for example.
      experiment: the run's configuration, language and model.
      variables: the model's parameters.
    """

    def __init__(self, workdir: pathlib.Path, source: FeatureSource | None):
        """Takes the run, and what made the features of the pictures that it is to score.

        Raises:
          InputError: the workdir has no checkpoint, or its model has vectors or was trained on other features.
        """
        experiment = Experiment.of_workdir(workdir, protocol="standard")
        if not isinstance(experiment.encoder, PairScorer):
            raise InputError(
                f"{workdir} holds {experiment.config.model.name}; expected a model that scores pairs: scan or "
                "cross_attention"
            )
        trained = feature_source.read(workdir)
        if trained and source and trained != source:
            raise InputError(f"{workdir} was trained on features of {trained}; expected {source}, as the index has")
        self.name, self.experiment, self._scorer = experiment.config.model.name, experiment, experiment.encoder
        self.variables, _ = experiment.restore_best()

    def scores(self, regions: Sequence[np.ndarray], texts: Sequence[str], pairs: np.ndarray) -> np.ndarray:
        """Returns <float32>[pairs], higher is better.

        Args:
          regions: <float32>[regions, features] of each picture.
          texts: any number.
          pairs: <int>[pairs, 2], a picture and a text each.
        """
        features, num_regions = picture_encoder.padded([Regions(each, np.zeros((0, 4))) for each in regions])
        tokens, labels = self.experiment.language.read(texts)
        split = Split(
            name="pictures that were found",
            regions=MappedRegions(features, np.arange(len(features))),
            captions=list(texts),
            tokens=tokens,
            image_of_caption=np.zeros(len(texts), np.int32),
            image_labels=np.zeros((len(features), labels.shape[1]), bool),
            caption_labels=labels,
            image_ids=[str(place) for place in range(len(features))],
            image_names=None,
            num_regions=num_regions,
        )
        return self._scorer.score_pairs(self.variables, split, *pairs.T, is_shown=False)

    def pictures(self, index: Index, text: str, hits: Sequence[Hit]) -> list[Hit]:
        """Returns the pictures that a text has found, with their scores and in the order of these."""
        pairs = np.stack([np.arange(len(hits)), np.zeros(len(hits), int)], axis=1)
        return _in_order(hits, self.scores([index.regions(hit.place) for hit in hits], [text], pairs))

    def captions(self, regions: np.ndarray, hits: Sequence[Hit]) -> list[Hit]:
        """Returns the captions that a picture, <float32>[regions, features], has found, likewise."""
        pairs = np.stack([np.zeros(len(hits), int), np.arange(len(hits))], axis=1)
        return _in_order(hits, self.scores([regions], [hit.caption or "" for hit in hits], pairs))


def _in_order(hits: Sequence[Hit], scores: np.ndarray) -> list[Hit]:
    order = np.argsort(-scores, kind="stable")
    return [hits[place]._replace(score=float(scores[place])) for place in order]
