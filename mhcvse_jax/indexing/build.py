"""Indexes made, added to and taken from."""

import functools
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax.data import batches, feature_source, scan_layout
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import reading
from mhcvse_jax.indexing import store
from mhcvse_jax.indexing.store import Header, Part, PartArrays, Pictures
from mhcvse_jax.indexing.trained import TrainedModel
from mhcvse_jax.terminal.progress import counted

AT_ONCE = 2048  # pictures or captions that are encoded between two steps of the progress


class Source(NamedTuple):
    """A data directory, which of its splits are wanted, and the folder of its pictures, where there is one."""

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
    """Returns the header after the pictures of a source were added, and writes it.

    Args:
      directory: of the index; exists.
      header: what its index.json says, or is to say.
      model: which made the index.
      source: what is added; pictures whose ids the index has are left out.

    Raises:
      InputError: a file is missing or damaged, or the features are of another width or encoder.
    """
    feature_source.check(source.directory, model.workdir)
    made_by = feature_source.read(source.directory)
    if made_by and header.source and made_by != header.source:
        raise InputError(f"{source.directory} has features of {made_by}; expected {header.source}, as {directory} has")
    header = header._replace(source=header.source or made_by)
    pictures = Pictures(directory, header.parts)
    known = {pictures.record(place)["id"] for place in range(len(pictures))}
    for name in source.splits:
        split = _load(model, source.directory, name)
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
        arrays = _encode(model, split, chosen, header.dtype)
        store.write_part(directory, part, arrays, _records(source.directory, split, chosen))
        known.update(split.image_ids)
        header = header._replace(parts=(*header.parts, part), next_part=header.next_part + 1)
    store.write_header(directory, header)
    return header


def remove(directory: pathlib.Path, header: Header, ids: Collection[str]) -> Header:
    """Returns the header after the pictures with these ids were taken out, and writes it.

    Only the parts that hold one of them are written anew.

    Raises:
      InputError: the index has no picture of such an id.
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
    header = header._replace(parts=tuple(parts))
    store.write_header(directory, header)
    return header


def _layout(directory: pathlib.Path) -> str:
    return "tfds" if scan_layout.is_tfds(directory) else "scan"


def _load(model: TrainedModel, directory: pathlib.Path, name: str) -> Split:
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


def _encode(model: TrainedModel, split: Split, chosen: np.ndarray, dtype: str) -> PartArrays:
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
    boxes = _beside(directory, split, "boxes", (split.regions.shape[1], 4))
    sizes = _beside(directory, split, "image_sizes", (2,))
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
            "boxes": None if boxes is None else boxes[place, :num].round(1).astype(np.float64).round(1).tolist(),
            "captions": captions.get(place, []),
        }


def _beside(directory: pathlib.Path, split: Split, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns what a data directory knows of the pictures of a split beside their features; None where nothing."""
    path = directory / f"{split.name}_{name}.npy"
    if not path.exists():
        return None
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a whole .npy file ({error})") from error
    if values.shape != (split.num_images, *shape):
        raise InputError(f"{path} holds {values.shape}; expected {(split.num_images, *shape)}, as the features are")
    return values
