"""A directory in SCAN's layout as a tensorflow-datasets data set: ArrayRecord shards, read by random access.

    dataset_info.json, features.json                   what tensorflow-datasets knows of it
    scan_regions-{split}.array_record-00000-of-00067   one record per picture: its features, captions, id, file name
    {split}_caps.txt, _ids.txt, _image_names.txt,      the texts of the records once more, in SCAN's layout
    _caption_images.txt, _num_regions.npy

`mhcvse_jax.build_tfds` writes it. The texts are stored beside the records because a run reads all captions at the start
but features batch by batch, and both lie together in the records. Nothing here imports TensorFlow.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from mhcvse_jax.data import scan_layout
from mhcvse_jax.data.scan_layout import ScanSplit
from mhcvse_jax.errors import InputError, RunFailedError

_Example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]

DTYPES = ("float32", "float16")
SHARD_BYTES = 128 << 20  # COCO's training split has some 250 of these: files for all, and few enough to keep open
BUILD = "python -m mhcvse_jax.build_tfds"


def record_features(
    shape: Sequence[int], dtype: np.dtype, captions_per_image: int | None
) -> tfds.features.FeaturesDict:
    """Returns what a record holds; `shape` is (regions, features), and None captions per picture are any number."""
    return tfds.features.FeaturesDict(
        {
            "regions": tfds.features.Tensor(shape=tuple(shape), dtype=dtype, encoding="bytes"),
            "captions": tfds.features.Sequence(tfds.features.Text(), length=captions_per_image),
            "image_id": tfds.features.Text(),  # Karpathy's
            "image_name": tfds.features.Text(),  # of its file; empty where it is not known
        }
    )


class ScanRegions(tfds.core.ShardBasedBuilder):
    """The builder: a record per picture, in the order of the splits.

    Shards are written as they are read. tensorflow-datasets' usual base class would collect a split and shuffle it,
    past 1,000 MiB through files that it needs TensorFlow for.
    """

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded; to look for some, tensorflow-datasets needs what it does not install

    def __init__(
        self,
        splits: Mapping[str, ScanSplit],
        *,
        dtype: np.dtype,
        captions_per_image: int,
        data_dir: pathlib.Path,
        picture_done: Callable[[], object] = lambda: None,
    ):
        """Takes splits whose pictures have equally many regions and features.

        Args:
          splits: the splits by name.
          dtype: the type of the stored features, to which they are rounded.
          captions_per_image: how many captions each picture has, unless a file says which picture each belongs to.
          data_dir: where `download_and_prepare` makes scan_regions/1.0.0/.
          picture_done: called after each picture.
        """
        self._scan, self._dtype, self._picture_done = splits, dtype, picture_done
        self._captions_per_image = captions_per_image
        super().__init__(data_dir=data_dir, file_format=tfds.core.FileFormat.ARRAY_RECORD)

    def _info(self) -> tfds.core.DatasetInfo:
        split = next(iter(self._scan.values()))
        equal = all(has_equal_captions(split, self._captions_per_image) for split in self._scan.values())
        features = record_features(split.regions.shape[1:], self._dtype, self._captions_per_image if equal else None)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator]]]:
        return {
            name: [functools.partial(self._examples, name, images) for images in shards(split, self._dtype)]
            for name, split in self._scan.items()
        }

    def _examples(self, name: str, images: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        split = self._scan[name]
        order = np.argsort(split.image_of_caption, kind="stable")
        firsts = np.searchsorted(split.image_of_caption[order], np.arange(split.num_images + 1))
        for image in images.tolist():
            yield (
                image,
                {
                    "regions": self._stored(name, image),
                    "captions": [split.captions[i] for i in order[firsts[image] : firsts[image + 1]]],
                    "image_id": split.image_ids[image],
                    "image_name": split.image_names[image] if split.image_names else "",
                },
            )
            self._picture_done()

    def _stored(self, name: str, image: int) -> np.ndarray:
        exact = self._scan[name].regions.read(np.array([image]))[0]
        if not np.isfinite(exact).all():
            raise InputError(f"{name}_ims.npy: the features of picture {image} (counted from 0) are not finite")
        with np.errstate(over="ignore"):
            stored = exact.astype(self._dtype)
        if not np.isfinite(stored).all():
            raise InputError(
                f"{name}_ims.npy: picture {image} (counted from 0) has a feature of size {abs(exact).max():.3g}, "
                f"which {self._dtype} cannot hold; expected dtype float32"
            )
        return stored

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _PlainWriter(tfds.core.FileFormat.ARRAY_RECORD)

    def _log_download_bytes(self) -> None:
        """Does nothing: nothing is downloaded."""

    _log_download_done = _log_download_bytes


class _PlainWriter(tfds.core.ExampleWriter):
    """Writes records uncompressed: compression saves 7% and makes reading more than 50% slower."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> None:
        writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
        for _, record in examples:
            _written(path, writer.write, record)
        _written(path, writer.close)


def _written(path: os.PathLike[str], write: Callable[..., object], *record: bytes) -> None:
    try:
        write(*record)
    except RuntimeError as error:  # a full disk, for example
        raise RunFailedError(f"{path}: cannot be written ({_one_line(error)})") from error


def has_equal_captions(split: ScanSplit, captions_per_image: int) -> bool:
    """Whether all pictures have so many captions, in their order."""
    return np.array_equal(split.image_of_caption, scan_layout.equal_owners(split.num_images, captions_per_image))


def shards(split: ScanSplit, dtype: np.dtype) -> list[np.ndarray]:
    """Returns the indices of the pictures in each shard of a split."""
    size = np.prod(split.regions.shape) * dtype.itemsize
    number = min(-(-size // SHARD_BYTES), split.num_images)
    return np.array_split(np.arange(split.num_images), number)


def write(
    splits: Mapping[str, ScanSplit],
    directory: pathlib.Path,
    *,
    dtype: np.dtype,
    captions_per_image: int,
    picture_done: Callable[[], object],
) -> pathlib.Path:
    """Builds the data set somewhere in `directory`, and returns its directory; see `ScanRegions`.

    Raises:
      InputError: features are not finite, or `dtype` cannot hold them.
      RunFailedError: a file cannot be written.
    """
    builder = ScanRegions(
        splits, dtype=dtype, captions_per_image=captions_per_image, data_dir=directory, picture_done=picture_done
    )
    builder.download_and_prepare()
    built = pathlib.Path(builder.data_dir)
    for name, split in splits.items():
        texts = {"caps": split.captions, "ids": split.image_ids, "image_names": split.image_names}
        if not has_equal_captions(split, captions_per_image):
            texts["caption_images"] = [split.image_ids[image] for image in split.image_of_caption]
        for kind, lines in texts.items():
            if lines is not None:
                content = "".join(f"{line}\n" for line in lines)
                (built / f"{name}_{kind}.txt").write_text(content, encoding="utf-8", newline="\n")
        if split.num_regions is not None:
            np.save(scan_layout.num_regions_path(built, name), split.num_regions, allow_pickle=False)
        read_split(built, name, captions_per_image)
    return built


class RecordRegions:
    """Region features in records, of which one is read at a time."""

    def __init__(self, records: Sequence[bytes], files: Sequence[Any], shape: tuple[int, int], dtype: np.dtype):
        """Takes the records of a split, raw; what they lie in; what each holds, (regions, features) of `dtype`."""
        self._records, self._files = records, files
        self._last_of_file = np.cumsum([file.take for file in files]) - 1
        self.shape: tuple[int, int, int] = (len(records), *shape)
        self.dtype = dtype

    def read(self, images: np.ndarray) -> np.ndarray:
        """Returns <float32>[images, regions, features] of the pictures with these indices.

        Raises:
          InputError: a record is damaged; each has a checksum.
        """
        regions = np.empty((len(images), *self.shape[1:]), np.float32)
        for place, image in enumerate(images.tolist()):
            try:
                # Of all features this one alone: the tensorflow-datasets decoder takes twice the time.
                example = _Example.FromString(self._records[image])
                (content,) = example.features.feature["regions"].bytes_list.value
                regions[place] = np.frombuffer(content, self.dtype).reshape(self.shape[1:])
            except (RuntimeError, ValueError, DecodeError) as error:
                path, _ = self.place(image)
                raise InputError(f"{path}: the record of picture {image} is damaged ({_one_line(error)})") from error
        return regions

    def place(self, image: int) -> tuple[str, int]:
        """Returns the shard that holds a picture, and its record there."""
        number = int(np.searchsorted(self._last_of_file, image))
        file = self._files[number]
        return os.fspath(file.filename), image - int(self._last_of_file[number]) + file.take - 1


def read_split(directory: pathlib.Path, split: str, captions_per_image: int) -> ScanSplit:
    """Returns a split of a data set, with its files checked against its description of them.

    Raises:
      InputError: a file is missing, damaged or of another kind, or the counts of two files do not match.
    """
    regions = _open_regions(directory, split)
    texts = scan_layout.read_texts(directory, split, captions_per_image, regions.shape[0])
    if len(texts.image_ids) != regions.shape[0]:
        raise InputError(
            f"{directory / split}_caps.txt has the captions of {len(texts.image_ids)} pictures, {captions_per_image} "
            f"each; expected those of the {regions.shape[0]} records of {split}"
        )
    return ScanSplit(regions, *texts, scan_layout.read_num_regions(directory, split, *regions.shape[:2]))


def find_splits(directory: pathlib.Path) -> list[str]:
    """Returns the splits of a data set, in its order.

    Raises:
      InputError: the directory holds no such data set.
    """
    return [*_open(directory).info.splits]


def _open_regions(directory: pathlib.Path, split: str) -> RecordRegions:
    builder = _open(directory)
    splits = builder.info.splits
    if split not in splits:
        raise InputError(f"{directory} has no split {split!r}; expected one of {', '.join(sorted(splits))}")
    files = splits[split].file_instructions
    for file in files:
        _check_shard(pathlib.Path(file.filename), file.examples_in_shard)
    records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    shape, dtype = _check_features(directory / "features.json", builder.info.features)
    regions = RecordRegions(records, files, shape, dtype)
    regions.read(np.array([0]))
    return regions


def _open(directory: pathlib.Path) -> Any:
    """Returns tensorflow-datasets' reader of the directory, which is of our kind and version."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected a data set that `{BUILD}` has built")
    if not scan_layout.is_tfds(directory):
        is_scan = any(directory.glob("*_ims.npy"))
        instead = "; it is in SCAN's layout: data.format is scan, or build a data set from it" if is_scan else ""
        raise InputError(f"{directory}: no dataset_info.json in it, so `{BUILD}` has not finished one here{instead}")
    if not (directory / "features.json").is_file():
        raise InputError(f"{directory / 'features.json'}: no such file; expected it beside dataset_info.json")
    try:
        builder = tfds.builder_from_directory(directory)
    except Exception as error:  # anything may come of a damaged file
        raise InputError(
            f"{directory}: its dataset_info.json or features.json is damaged ({_one_line(error)})"
        ) from error
    if builder.name != ScanRegions.name:
        raise InputError(f"{directory} is the data set {builder.name!r}; expected {ScanRegions.name!r}, by `{BUILD}`")
    if builder.version != ScanRegions.VERSION:
        raise InputError(
            f"{directory} is of version {builder.version}; expected {ScanRegions.VERSION}, as `{BUILD}` builds it now"
        )
    return builder


def _check_features(path: pathlib.Path, found: Any) -> tuple[tuple[int, int], np.dtype]:
    """Returns shape and dtype of a record's regions; checks that nothing else is in it but what the builder writes."""
    # Shapes alone are asked for: a feature's `dtype` imports TensorFlow.
    shape, captions = (getattr(dict(found).get(name), "shape", None) for name in ("regions", "captions"))
    if isinstance(shape, tuple) and len(shape) == 2 and isinstance(captions, tuple) and len(captions) == 1:
        for dtype in map(np.dtype, DTYPES):
            if found.to_json() == record_features(shape, dtype, *captions).to_json():
                return shape, dtype
    raise InputError(
        f"{path}: a record has {_one_line(found)}; expected regions (float32 or float16, [regions, features], encoded "
        f"as bytes), captions, image_id and image_name, as `{BUILD}` writes them"
    )


def _check_shard(path: pathlib.Path, num_records: int) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected {num_records} records, as dataset_info.json says")
    try:
        reader = array_record_module.ArrayRecordReader(os.fspath(path), options="readahead_buffer_size:0")
        found = reader.num_records()
        reader.close()  # raises what was wrong
    except RuntimeError as error:
        raise InputError(f"{path}: not a whole ArrayRecord file ({_one_line(error)})") from error
    if found != num_records:
        raise InputError(f"{path} has {found} records; expected {num_records}, as dataset_info.json says")


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
