"""Making indexes, adding pictures and removing them."""

import functools
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax.data import batches, feature_source, region_boxes, region_names, scan_layout
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.devices.mesh import make_mesh
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import reading
from mhcvse_jax.indexing import faiss_engine, store
from mhcvse_jax.indexing.faiss_engine import FaissSearch
from mhcvse_jax.indexing.index import joined
from mhcvse_jax.indexing.store import Header, Part, PartArrays, Pictures
from mhcvse_jax.indexing.trained import TrainedModel
from mhcvse_jax.retrieval.nearest import ExactSearch
from mhcvse_jax.terminal.progress import counted

AT_ONCE = 2048  # pictures or captions that are encoded between two steps of the progress
RECALL_QUERIES = 1000  # by which an approximate index is compared with the exact search


class Source(NamedTuple):
    """A data directory, which of its splits are wanted, and the folder of its pictures, if there is one."""

    directory: pathlib.Path
    splits: Sequence[str]
    images: pathlib.Path | None


def new_header(model: TrainedModel, dtype: str) -> Header:
    """Returns what index.json says of an index without pictures."""
    return Header(
        model=model.name,
        workdir=str(model.workdir.resolve()),
        fingerprint=model.fingerprint,
        width=model.width,
        dtype=dtype,
        source=model.source,
        parts=(),
    )


def add(directory: pathlib.Path, header: Header, model: TrainedModel, source: Source) -> Header:
    """Adds the pictures of a source; returns and writes the new header.

    Args:
      directory: the directory of the index, which exists.
      header: what its index.json says, or will say.
      model: the model that made the index.
      source: what is added; pictures whose ids the index has are left out.

    Raises:
      InputError: a file is missing or damaged, or the features are of another width or encoder.
    """
    feature_source.check(source.directory, model.workdir)
    made_by = feature_source.read(source.directory)
    if made_by and header.source and made_by != header.source:
        raise InputError(f"{source.directory} has features of {made_by}; expected {header.source}, as {directory} has")
    header = header._replace(source=header.source or made_by, faiss=None)
    pictures = Pictures(directory, header.parts)
    known = {pictures.record(place)["id"] for place in range(len(pictures))}
    for name in source.splits:
        split = load_split(model, source.directory, name)
        chosen = _unknown(split, known)
        if len(chosen) < split.num_images:
            print(
                f"left out  {split.num_images - len(chosen):,} pictures of {name}, whose ids the index has", flush=True
            )
        if not len(chosen):
            continue
        part = Part(
            name=f"{header.next_part:06}",
            pictures=len(chosen),
            captions=int(np.isin(split.image_of_caption, chosen).sum()),
            data=str(source.directory.resolve()),
            layout=_layout(source.directory),
            split=name,
            captions_per_image=model.experiment.config.data.num_captions_per_image,
            images=None if source.images is None else str(source.images.resolve()),
        )
        arrays = encode_split(model, split, chosen, header.dtype)
        store.write_part(directory, part, arrays, _records(source.directory, split, chosen))
        known.update(split.image_ids)
        header = header._replace(parts=(*header.parts, part), next_part=header.next_part + 1)
    store.write_header(directory, header)
    return header


def remove(directory: pathlib.Path, header: Header, ids: Collection[str]) -> Header:
    """Removes the pictures with these ids; returns and writes the new header.

    Only the parts that hold one of them are rewritten.

    Raises:
      InputError: the index has no picture with such an id.
    """
    left = set(ids)
    parts = []
    for part in header.parts:
        pictures = Pictures(directory, (part,))
        records = [pictures.record(place) for place in range(len(pictures))]
        kept = np.array([record["id"] not in left for record in records])
        if kept.all():
            parts.append(part)
            continue
        left.difference_update(record["id"] for record in records)
        if not kept.any():
            continue
        arrays = store.read_part(directory, header, part)
        is_kept = kept[arrays.caption_images]
        place = (np.cumsum(kept) - 1).astype(np.int32)
        arrays = PartArrays(arrays.images[kept], arrays.captions[is_kept], place[arrays.caption_images[is_kept]])
        part = part._replace(name=f"{header.next_part:06}", pictures=int(kept.sum()), captions=int(is_kept.sum()))
        header = header._replace(next_part=header.next_part + 1)
        store.write_part(directory, part, arrays, (record for record, keep in zip(records, kept, strict=True) if keep))
        parts.append(part)
    if left:
        raise InputError(f"{directory} has no picture {sorted(left)[0]!r}; expected ids that it has")
    header = header._replace(parts=tuple(parts), faiss=None)
    store.write_header(directory, header)
    return header


def add_faiss(directory: pathlib.Path, header: Header, factory: str, search: str) -> Header:
    """Makes an index of faiss for the pictures and prints its recall@10; returns and writes the new header.

    Raises:
      InputError: faiss is not installed or cannot make it, or there are no pictures.
    """
    if not header.num_pictures:
        raise InputError(f"{directory} has no pictures; expected at least one")
    arrays = [store.read_part(directory, header, part) for part in header.parts]
    vectors = joined([each.images for each in arrays])
    name = f"{header.next_part:06}_{store.FAISS_FILE}"
    started = time.monotonic()
    with store.kept_file(directory / name) as file:
        faiss_engine.build(pathlib.Path(file.name), vectors, factory, search)
    seconds = time.monotonic() - started
    queries = joined([each.captions for each in arrays]) if header.num_captions else vectors
    chosen = np.linspace(0, len(queries) - 1, min(RECALL_QUERIES, len(queries))).astype(int)
    queries = np.asarray(queries[chosen], np.float32)
    exact = ExactSearch(vectors, make_mesh())(queries, 10).places
    found = FaissSearch(directory / name, search, len(vectors), header.width)(queries, 10).places
    recall = float(np.mean([np.isin(*rows).mean() for rows in zip(exact, found, strict=True)]))
    what = "captions" if header.num_captions else "pictures"
    print(
        f"faiss     {factory} of {len(vectors):,} vectors in {seconds:.1f} s; recall@10 {recall:.3f} against the exact "
        f"search, over {len(queries):,} {what} as queries",
        flush=True,
    )
    faiss = store.FaissFile(name, factory, search, round(recall, 4))
    header = header._replace(faiss=faiss, next_part=header.next_part + 1)
    store.write_header(directory, header)
    return header


def find_splits(directory: pathlib.Path) -> list[str]:
    """Returns all splits of a data directory.

    Raises:
      InputError: there is no such directory, or no split in it.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected region features in SCAN's layout")
    if _layout(directory) == "scan":
        return scan_layout.find_splits(directory)
    from mhcvse_jax.data import tfds  # here, as tensorflow-datasets takes half a second to import

    return tfds.find_splits(directory)


def _layout(directory: pathlib.Path) -> str:
    return "tfds" if scan_layout.is_tfds(directory) else "scan"


def load_split(model: TrainedModel, directory: pathlib.Path, name: str) -> Split:
    """Returns a split as the model reads it."""
    values = model.experiment.config.data.copy_and_resolve_references().unlock()
    values.format = _layout(directory)
    split = reading.load_split(directory, name, model.experiment.language, values)
    model.check_regions(split.regions.shape[1:], f"{directory}: the features of {name}")
    return split


def _unknown(split: Split, known: Collection[str]) -> np.ndarray:
    """Returns <int64>[any], the pictures of a split whose ids are not known; of equal ids within it the first."""
    first = {image_id: place for place, image_id in reversed([*enumerate(split.image_ids)])}
    return np.array(sorted(place for image_id, place in first.items() if image_id not in known), np.int64)


def encode_split(model: TrainedModel, split: Split, chosen: np.ndarray, dtype: str) -> PartArrays:
    """Returns the vectors of chosen pictures and of their captions, these in the order of the pictures."""
    captions = np.flatnonzero(np.isin(split.image_of_caption, chosen))
    captions = captions[np.argsort(split.image_of_caption[captions], kind="stable")]
    tokens, labels = split.tokens.chosen(captions), split.caption_labels[captions]
    by_length = np.argsort(tokens.lengths, kind="stable")

    def images_at(start: int, stop: int) -> np.ndarray:
        read = functools.partial(batches.read_regions, split)
        return model.encode_with(lambda places: read(chosen[start:stop][places]), stop - start)

    def captions_at(start: int, stop: int) -> np.ndarray:
        some = by_length[start:stop]
        return model.encode_tokens(tokens.chosen(some), labels[some])

    images = _in_chunks(images_at, len(chosen), model.width, dtype, "picture")
    vectors = np.empty((len(captions), model.width), dtype)
    vectors[by_length] = _in_chunks(captions_at, len(captions), model.width, dtype, "caption")
    owners = np.searchsorted(chosen, split.image_of_caption[captions]).astype(np.int32)
    return PartArrays(images, vectors, owners)


def _in_chunks(encode: Callable[[int, int], np.ndarray], number: int, width: int, dtype: str, unit: str) -> np.ndarray:
    vectors = np.empty((number, width), dtype)
    with counted(number, unit) as done:
        for start in range(0, number, AT_ONCE):
            stop = min(start + AT_ONCE, number)
            vectors[start:stop] = encode(start, stop)
            done(stop - start)
    return vectors


def _records(directory: pathlib.Path, split: Split, chosen: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yields the line of each chosen picture."""
    shape = split.num_images, split.regions.shape[1]
    boxes, sizes = region_boxes.read(directory, split.name, *shape)
    told = region_names.read(directory, split.name, *shape)
    captions: dict[int, list[str]] = {}
    for caption, owner in zip(split.captions, split.image_of_caption, strict=True):
        captions.setdefault(int(owner), []).append(caption)
    for place in map(int, chosen):
        num = split.regions.shape[1] if split.num_regions is None else int(split.num_regions[place])
        yield {
            "id": split.image_ids[place],
            "file": split.image_names[place] if split.image_names else None,
            "size": None if sizes is None else sizes[place].tolist(),
            "row": place,
            "boxes": None if boxes is None else boxes[place, :num].astype(np.float64).round(1).tolist(),
            "shows": told.of(place)[:num] or None,
            "captions": captions.get(place, []),
        }
