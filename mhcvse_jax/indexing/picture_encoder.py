"""The encoder that made a run's features, rebuilt from features.json."""

import inspect
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute.regions import Regions

if TYPE_CHECKING:
    from mhcvse_jax.encoders.encoder import Encoder


def of_source(source: FeatureSource, weights: pathlib.Path | None = None) -> "Encoder":
    """Returns the encoder that made these features.

    Args:
      source: what made the features.
      weights: the file of its weights; None: those in its package.

    Raises:
      InputError: this program has no such encoder, or its weights or settings differ.
    """
    from mhcvse_jax.encoders import ENCODERS  # here, as a search by text needs no encoder of pictures

    if source.encoder not in ENCODERS:
        raise InputError(
            f"the features are from {source.encoder}, which this program cannot run on a picture; expected those "
            f"of {' or '.join(ENCODERS)}"
        )
    encoder_class = ENCODERS[source.encoder]
    options = inspect.signature(encoder_class).parameters
    encoder = encoder_class(weights, **{key: value for key, value in source.settings.items() if key in options})
    found = FeatureSource(encoder.name, encoder.weights_sha256, encoder.settings())
    if found != source:
        raise InputError(f"the encoder here is {found}; expected {source}, which made the features")
    return encoder


def read(file: object) -> np.ndarray:
    """Returns the pixels of a file <uint8>[height, width, 3]; pixels as they are.

    Raises:
      InputError: it is missing, damaged or not a picture.
    """
    if isinstance(file, np.ndarray):
        if file.ndim != 3 or file.shape[2] != 3 or file.dtype != np.uint8:
            raise InputError(f"a picture is {file.dtype} {file.shape}; expected uint8 (height, width, 3)")
        return file
    from mhcvse_jax.precompute.pictures import read_picture

    return read_picture(pathlib.Path(str(file)))


def padded(regions: Sequence[Regions]) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns <float32>[pictures, regions, features], zero at padding, and how many each has; None where all have all.

    Args:
      regions: the regions of one picture or more.
    """
    counts = np.array([len(each.features) for each in regions], np.int32)
    most, width = counts.max(initial=0), regions[0].features.shape[1] if regions else 0
    features = np.zeros((len(regions), most, width), np.float32)
    for row, each in zip(features, regions, strict=True):
        row[: len(each.features)] = each.features
    return features, None if (counts == most).all() else counts
