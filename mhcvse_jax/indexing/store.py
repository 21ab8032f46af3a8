"""The files of an index: parts that never change, and one file that says which parts make up the index.

    index.json                 the model, the features, and the parts in their order; written last, at once
    {part}_images.npy          float32 or float16 [pictures, D]
    {part}_captions.npy        the same of the captions, [captions, D], in the order of their pictures
    {part}_caption_images.npy  int32 [captions], the picture of each within the part
    {part}_pictures.jsonl      one picture per line: id, file, size, row, boxes, shows, captions
    {number}_images.faiss      if asked for, faiss's index of the pictures of all parts

A change writes new parts and then index.json, so a reader sees the index either before or after it. A directory without
an index.json is not an index. Files that index.json does not name were left by a process that was stopped; the next
change deletes them.
"""

import contextlib
import json
import mmap
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple, overload

import numpy as np

from mhcvse_jax import __version__
from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.whole import whole_file

FILE, FORMAT = "index.json", 1
PART_FILES = ("images.npy", "captions.npy", "caption_images.npy", "pictures.jsonl")
FAISS_FILE = "images.faiss"


class Picture(NamedTuple):
    """What an index knows about a picture."""

    id: str
    file: str | None  # the path of the picture; None where it is not known
    size: tuple[int, int] | None  # width and height in pixels
    boxes: np.ndarray | None  # <float32>[regions, 4], x1 y1 x2 y2 in pixels
    captions: list[str]
    row: int = 0  # its place within the split of the data directory that it came from
    shows: list[str] | None = None  # what each region shows, such as "brown dog", where the data directory says it


class Part(NamedTuple):
    """A part of an index: pictures of one split of one data directory."""

    name: str
    pictures: int
    captions: int
    data: str  # the directory of the region features
    layout: str  # "scan" or "tfds"
    split: str
    captions_per_image: int  # as `data.num_captions_per_image`
    images: str | None  # the folder of the pictures


class FaissFile(NamedTuple):
    """An approximate index of the pictures of all parts."""

    name: str  # of the file
    factory: str  # what faiss calls it, HNSW32 for example
    search: str  # parameters of the search, efSearch=128 for example
    recall_at_10: float  # share of the exact ten nearest that it finds, when it was made


class Header(NamedTuple):
    """What index.json says."""

    model: str  # config.model.name
    workdir: str
    fingerprint: str  # of the model
    width: int  # D
    dtype: str  # "float32" or "float16"
    source: FeatureSource | None
    parts: tuple[Part, ...]
    next_part: int = 0
    faiss: FaissFile | None = None

    @property
    def num_pictures(self) -> int:
        """Pictures of all parts."""
        return sum(part.pictures for part in self.parts)

    @property
    def num_captions(self) -> int:
        """Captions of all parts."""
        return sum(part.captions for part in self.parts)


def read_header(directory: pathlib.Path) -> Header:
    """Returns what index.json says.

    Raises:
      InputError: there is none, it is damaged, or a later version of the program wrote it.
    """
    path = directory / FILE
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected an index that `mhcvse index` made")
    if not path.is_file():
        raise InputError(
            f"{directory}: not a complete index (no {FILE}); expected a directory that `mhcvse index` has finished"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(f"{path}: format {content['format']}; expected {FORMAT}, which this program reads")
        source, faiss = content["source"], content["faiss"]
        return Header(
            model=content["model"],
            workdir=content["workdir"],
            fingerprint=content["fingerprint"],
            width=content["width"],
            dtype=content["dtype"],
            source=None if source is None else FeatureSource(**source),
            parts=tuple(Part(**part) for part in content["parts"]),
            next_part=content["next_part"],
            faiss=None if faiss is None else FaissFile(**faiss),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged ({error!r}); expected what `mhcvse index` wrote") from error


def write_header(directory: pathlib.Path, header: Header) -> None:
    """Makes the index consist of these parts, then deletes the files of all others."""
    source, faiss = header.source, header.faiss
    content = {
        "format": FORMAT,
        "program": f"mhcvse_jax {__version__}",
        **header._asdict(),
        "source": None if source is None else source._asdict(),
        "parts": [part._asdict() for part in header.parts],
        "faiss": None if faiss is None else faiss._asdict(),
    }
    with whole_file(directory / FILE) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    kept = {f"{part.name}_{file}" for part in header.parts for file in PART_FILES}
    if faiss:
        kept.add(faiss.name)
    for path in directory.iterdir():
        if is_ours(path) and path.name not in {*kept, FILE}:
            path.unlink(missing_ok=True)


def is_ours(path: pathlib.Path) -> bool:
    """Returns whether a file is named like those of an index, finished or not."""
    name = path.name.removeprefix(".").removesuffix(".partial")
    return name == FILE or name.partition("_")[2] in (*PART_FILES, FAISS_FILE)


class PartArrays(NamedTuple):
    """What the files of a part hold."""

    images: np.ndarray  # <float32 or float16>[pictures, D]
    captions: np.ndarray  # <float32 or float16>[captions, D]
    caption_images: np.ndarray  # <int32>[captions]


def write_part(directory: pathlib.Path, part: Part, arrays: PartArrays, records: Iterator[dict[str, Any]]) -> None:
    """Writes the files of a part; it belongs to the index once index.json names it."""
    for name, values in arrays._asdict().items():
        with kept_file(directory / f"{part.name}_{name}.npy") as file:
            np.save(file, values, allow_pickle=False)
    with kept_file(directory / f"{part.name}_pictures.jsonl") as file:
        file.writelines((json.dumps(record, ensure_ascii=False) + "\n").encode() for record in records)


@contextlib.contextmanager
def kept_file(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Context with a file to write, which gets its name once it is completely on disk."""
    with whole_file(path) as partial, partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def read_part(directory: pathlib.Path, header: Header, part: Part) -> PartArrays:
    """Returns the arrays of a part, memory-mapped.

    Raises:
      InputError: a file is missing, damaged, or of another size than index.json says.
    """
    shapes = {
        "images": (part.pictures, header.width),
        "captions": (part.captions, header.width),
        "caption_images": (part.captions,),
    }
    found = []
    for name, shape in shapes.items():
        path = directory / f"{part.name}_{name}.npy"
        dtype = "int32" if name == "caption_images" else header.dtype
        try:
            array = np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; expected it, as {FILE} names it") from error
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: not a whole .npy file ({error})") from error
        if array.shape != shape or array.dtype != dtype:
            raise InputError(f"{path} holds {array.dtype} {array.shape}; expected {dtype} {shape}, as {FILE} says")
        found.append(array)
    return PartArrays(*found)


class Pictures(Sequence[Picture]):
    """The pictures of an index in its order; each is read from its line on demand."""

    def __init__(self, directory: pathlib.Path, parts: Sequence[Part]):
        """Takes the index and its parts.

        Raises:
          InputError: the file of a part is missing, or has another number of lines.
        """
        self._parts = parts
        self._lines = [_Lines(directory / f"{part.name}_pictures.jsonl", part.pictures) for part in parts]
        self._firsts = np.cumsum([0, *(part.pictures for part in parts)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @overload
    def __getitem__(self, place: int) -> Picture: ...
    @overload
    def __getitem__(self, place: slice) -> list[Picture]: ...
    def __getitem__(self, place: int | slice) -> Picture | list[Picture]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        number, _ = self.locate(place)
        record, images = self.record(place), self._parts[number].images
        boxes = record.get("boxes")
        return Picture(
            id=record["id"],
            file=None if images is None or record["file"] is None else os.path.join(images, record["file"]),
            size=None if record["size"] is None else tuple(record["size"]),
            boxes=None if boxes is None else np.array(boxes, np.float32).reshape(-1, 4),
            captions=record["captions"],
            row=record["row"],
            shows=record.get("shows"),
        )

    def locate(self, place: int) -> tuple[int, int]:
        """Returns the number of a picture's part, and its place within that.

        Raises:
          IndexError: there is no such picture.
        """
        place = range(len(self))[place]
        number = int(np.searchsorted(self._firsts, place, side="right")) - 1
        return number, place - int(self._firsts[number])

    def record(self, place: int) -> dict[str, Any]:
        """Returns what the line of a picture holds."""
        number, within = self.locate(place)
        return self._lines[number].read(within)


class _Lines:
    """The lines of a file, memory-mapped, each JSON."""

    def __init__(self, path: pathlib.Path, number: int):
        self._path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if number else b""
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}); expected it, as {FILE} names it") from error
        self._ends = np.flatnonzero(np.frombuffer(self._map, np.uint8) == ord("\n"))
        if len(self._ends) != number:
            raise InputError(f"{path} has {len(self._ends):,} lines; expected {number:,}, as {FILE} says")

    def read(self, line: int) -> dict[str, Any]:
        start = int(self._ends[line - 1]) + 1 if line else 0
        try:
            return json.loads(self._map[start : int(self._ends[line])])
        except ValueError as error:
            raise InputError(f"{self._path} line {line + 1}: damaged ({error})") from error
