"""An open index: searched by text, by picture, or by vector."""

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mhcvse_jax.data import dataset
from mhcvse_jax.data.scan_layout import ScanSplit
from mhcvse_jax.devices.mesh import make_mesh
from mhcvse_jax.errors import InputError
from mhcvse_jax.indexing import store, trained
from mhcvse_jax.indexing.faiss_engine import FaissSearch
from mhcvse_jax.indexing.store import Picture, Pictures
from mhcvse_jax.indexing.trained import PictureFile, TrainedModel
from mhcvse_jax.retrieval.nearest import ExactSearch, Nearest


class Hit(NamedTuple):
    """One of the pictures, or captions, that a query found."""

    score: float  # cosine in [-1, 1]
    place: int  # of the picture in the index
    picture: Picture
    caption: str | None = None  # where captions were searched


class Index:
    """A directory that `mhcvse index` made, opened for searching; it does not see later changes.

    Attributes:
      directory: where it is.
      header: what its index.json says.
      pictures: one record per picture, in the order of their places.
    """

    def __init__(self, directory: pathlib.Path, model: TrainedModel | None = None, engine: str = "exact"):
        """Takes the directory, the model where it is loaded already, and the engine; see `open`."""
        self.directory, self._model, self._engine = directory, model, engine
        self.header, self.pictures, self._arrays = _read(directory)
        if engine == "faiss" and self.header.faiss is None:
            raise InputError(
                f"{directory} has no index of faiss; expected `mhcvse index --out {directory} --engine faiss` before"
            )
        if model is not None:
            self._check(model)

    @classmethod
    def open(
        cls, directory: str | os.PathLike[str], model: TrainedModel | None = None, *, engine: str = "exact"
    ) -> "Index":
        """Returns an index to search. The model is loaded when it is first needed.

        Args:
          directory: what `mhcvse index` made.
          model: the model that made the vectors; None: it is loaded from the workdir that the index names.
          engine: "exact", or "faiss": approximate, where `mhcvse index --engine faiss` has made it.

        Raises:
          InputError: the directory is not a complete index, it was not made for the engine, or another model made it.
        """
        return cls(pathlib.Path(directory), model, engine)

    @classmethod
    def open_for(
        cls,
        directory: str | os.PathLike[str],
        workdir: pathlib.Path | None,
        encoder_weights: pathlib.Path | None,
        *,
        engine: str = "exact",
    ) -> "Index":
        """Returns an index as `open` does, with the model that a command's options name.

        Args:
          directory: what `mhcvse index` made.
          workdir: the run that made it; None: the one that the index names.
          encoder_weights: the weights of the picture encoder; None: those in its package.
          engine: see `open`.
        """
        model = None
        if workdir or encoder_weights:
            header = store.read_header(pathlib.Path(directory))
            workdir = workdir or pathlib.Path(header.workdir)
            model = trained.load(workdir, source=header.source, encoder_weights=encoder_weights, check=False)
        return cls.open(directory, model, engine=engine)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def model(self) -> TrainedModel:
        """The model that made the vectors.

        Raises:
          InputError: the workdir that the index names is gone, or holds another model.
        """
        if self._model is None:
            workdir = pathlib.Path(self.header.workdir)
            if not workdir.is_dir():
                raise InputError(
                    f"{self.directory} was made by {workdir}, which is gone; expected --workdir RUN, or in Python "
                    "Index.open(..., model=load(RUN))"
                )
            model = trained.load(workdir, source=self.header.source, check=False)
            self._check(model)
            self._model = model
        return self._model

    def search(self, texts: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """Returns the k pictures nearest to each text, best first; all if there are fewer.

        Raises:
          InputError: a text is empty, too long, or has no word that the vocabulary has.
        """
        for text in texts:
            self.model.check_query(text)
        return self.search_pictures(self.model.encode_texts(texts), k)

    def search_images(self, images: Sequence[PictureFile], k: int = 10) -> list[list[Hit]]:
        """Returns the k pictures nearest to each picture, a file or its pixels.

        Raises:
          InputError: a file cannot be read, or the encoder that made the features is not available.
        """
        return self.search_pictures(self.model.encode_images(images), k)

    def search_pictures(self, vectors: np.ndarray, k: int = 10) -> list[list[Hit]]:
        """Returns the k pictures nearest to each vector, <float32>[queries, D]; see `search_vectors`."""
        return [
            [
                Hit(float(score), int(place), self.pictures[int(place)])
                for score, place in zip(*row, strict=True)
                if place >= 0
            ]
            for row in zip(*self.search_vectors(vectors, k), strict=True)
        ]

    def search_captions(self, vectors: np.ndarray, k: int = 10) -> list[list[Hit]]:
        """Returns the k captions of the index nearest to each vector, <float32>[queries, D].

        Raises:
          InputError: the vectors have another width, or the index has no captions.
        """
        if not self.header.num_captions:
            raise InputError(f"{self.directory} has no captions; expected an index of pictures with captions")
        found = self._caption_search(self._checked(vectors), check_k(k))
        return [
            [self._caption_hit(score, int(place)) for score, place in zip(*row, strict=True)]
            for row in zip(*found, strict=True)
        ]

    def search_vectors(self, vectors: np.ndarray, k: int = 10) -> Nearest:
        """Returns scores <float32>[queries, k] and places <int64>[queries, k] of the nearest pictures, best first.

        On a tie, the lower place is first. If the index has fewer than k pictures, k is their number. If an approximate
        engine finds fewer than k, place is -1.

        Args:
          vectors: <float32>[queries, D], from `model.encode_texts` or `model.encode_images`.
          k: 1 or more.

        Raises:
          InputError: the vectors have another width, or k is not positive.
        """
        return self._image_search(self._checked(vectors), check_k(k))

    def vectors(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns <float32>[places, D], the vectors of pictures: "more like this" is a search by them."""
        located = [self.pictures.locate(int(place)) for place in places]
        rows = [self._arrays[number].images[within] for number, within in located]
        return np.array(rows, np.float32).reshape(len(rows), self.header.width)

    def regions(self, place: int) -> np.ndarray:
        """Returns <float32>[regions, features] of a picture, from the data directory that it came from.

        Raises:
          InputError: the directory is gone, or holds other pictures now.
        """
        number, _ = self.pictures.locate(place)
        part, picture = self.header.parts[number], self.pictures[place]
        split = self._split(number)
        if picture.row >= split.num_images or split.image_ids[picture.row] != picture.id:
            raise InputError(
                f"{part.data}: picture {picture.row} of {part.split} is not {picture.id} any more; expected the data "
                f"that {self.directory} was made of"
            )
        features = split.regions.read(np.array([picture.row]))[0]
        return features if split.num_regions is None else features[: split.num_regions[picture.row]]

    @functools.cache  # noqa: B019 (as long as the index)
    def _split(self, number: int) -> ScanSplit:
        part = self.header.parts[number]
        return dataset.read_split(
            pathlib.Path(part.data), part.split, layout=part.layout, captions_per_image=part.captions_per_image
        )

    @functools.cached_property
    def _image_search(self) -> ExactSearch | FaissSearch:
        if not len(self):
            raise InputError(f"{self.directory} has no pictures; expected at least one")
        if self._engine == "faiss" and self.header.faiss:
            path = self.directory / self.header.faiss.name
            return FaissSearch(path, self.header.faiss.search, len(self), self.header.width)
        return ExactSearch(joined([arrays.images for arrays in self._arrays]), make_mesh())

    @functools.cached_property
    def _caption_search(self) -> ExactSearch:
        return ExactSearch(joined([arrays.captions for arrays in self._arrays]), make_mesh())

    @functools.cached_property
    def _captions(self) -> tuple[np.ndarray, np.ndarray]:
        """<int64>[captions] the picture of each, and which of its captions it is."""
        firsts = np.cumsum([0, *(part.pictures for part in self.header.parts)])[:-1]
        owners = np.concatenate(
            [arrays.caption_images + first for arrays, first in zip(self._arrays, firsts, strict=True)]
        )
        return owners, np.arange(len(owners)) - np.searchsorted(owners, owners)

    def _caption_hit(self, score: float, caption: int) -> Hit:
        owners, numbers = self._captions
        picture = self.pictures[int(owners[caption])]
        return Hit(float(score), int(owners[caption]), picture, picture.captions[numbers[caption]])

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.header.width:
            raise InputError(f"the vectors are {vectors.shape}; expected (queries, {self.header.width})")
        if not np.isfinite(vectors).all():
            raise InputError("the vectors are not all finite; expected numbers")
        return vectors

    def _check(self, model: TrainedModel) -> None:
        if model.fingerprint != self.header.fingerprint:
            raise InputError(
                f"{self.directory} was made by another model ({self.header.model} of {self.header.workdir}) than "
                f"{model.workdir} holds; expected that one, or a new index"
            )


def check_k(k: int) -> int:
    """Returns k.

    Raises:
      InputError: it is less than 1.
    """
    if k < 1:
        raise InputError(f"k is {k}; expected 1 or more")
    return k


def _read(directory: pathlib.Path) -> tuple[store.Header, Pictures, list[store.PartArrays]]:
    """Returns all of an index; where it is changed in between, what it is then."""
    header = store.read_header(directory)
    while True:
        try:
            arrays = [store.read_part(directory, header, part) for part in header.parts]
            return header, Pictures(directory, header.parts), arrays
        except InputError:
            now = store.read_header(directory)
            if now == header:
                raise
            header = now


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns arrays as one; a single one stays memory-mapped."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
