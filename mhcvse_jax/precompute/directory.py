"""Writes a data directory picture by picture; it can be stopped and resumed, and several processes can share the work.

Until all pictures are done, everything lies in OUT/.unfinished: the features of each split at their final size, and
for each part of some pictures a file with all else, whose presence says that the part is done. A process takes a part
by locking a file beside it, so a part whose process died is free again. The last to end moves all into place.
"""

import contextlib
import fcntl
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax import __version__
from mhcvse_jax.data import feature_source, region_names
from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.errors import InputError
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.precompute.captions import SCAN_CAPTIONS
from mhcvse_jax.precompute.feature_file import FeatureFile, write_array
from mhcvse_jax.precompute.plan import Picture, Plan
from mhcvse_jax.precompute.regions import Regions
from mhcvse_jax.terminal import progress

PART_SIZE = 32  # pictures that are done or lost together
WAIT_SECONDS = 0.5  # between two looks at what other processes have left to do


class Made(NamedTuple):
    """What one picture became."""

    regions: Regions
    size: tuple[int, int]  # width and height in pixels; 0, 0 where they are not known


Maker = Callable[[Sequence[Picture]], Iterator[Made | InputError]]
"""Gives for each picture, in order, what it became, or why it is left out."""
Part = Sequence[tuple[str, int]]
"""Split and place of each picture."""


class Target(NamedTuple):
    """A directory to be made, and what is to be in it."""

    out: pathlib.Path
    plan: Plan
    source: FeatureSource
    row_shape: tuple[int, int]  # the most regions of a picture, and features of a region
    images: pathlib.Path | None = None  # the folder of the pictures
    part_size: int = PART_SIZE  # pictures that are done or lost together
    names: Mapping[str, Sequence[str]] = {}  # of the classes and attributes of regions, by `region_names.FILES`

    @property
    def unfinished(self) -> pathlib.Path:
        """Where all lies until it is finished."""
        return self.out / ".unfinished"

    @property
    def is_finished(self) -> bool:
        """Whether all is in place."""
        return (self.out / feature_source.FILE).exists()

    def features(self, split: str) -> FeatureFile:
        """Returns the unfinished features of a split."""
        return FeatureFile(self.unfinished / f"{split}_ims.npy", self.row_shape)

    def part(self, number: int) -> pathlib.Path:
        """Returns the file whose presence says that a part is done."""
        return self.unfinished / f"part{number:06}.npz"

    def digest(self) -> str:
        """Returns what tells the pictures and captions from others."""
        digest = hashlib.sha256()
        for split, pictures in self.plan.items():
            for name, image_id, captions, _, caption_ids in pictures:
                facts = (split, name, image_id, captions, *([caption_ids] if caption_ids else []))
                digest.update(json.dumps(facts).encode())
        return digest.hexdigest()


def write(target: Target, make: Maker, *, strict: bool, order: Part | None = None) -> None:
    """Writes all pictures of a plan, or those that are left, and prints progress.

    Args:
      target: the directory.
      make: makes regions of pictures; called with the pictures of one part at a time.
      strict: whether a picture that cannot be used ends the work.
      order: the order in which the pictures are best read; None: that of the plan.

    Raises:
      InputError: the directory holds something else, the disk is too small, or no picture of a split can be used.
      OSError: a file could not be written; the same call goes on.
    """
    _begin(target)
    order = order or [(split, place) for split, pictures in target.plan.items() for place in range(len(pictures))]
    size = target.part_size
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    left = [] if target.is_finished else [number for number in range(len(parts)) if not target.part(number).exists()]
    pictures_left = sum(len(parts[number]) for number in left)
    if 0 < pictures_left < len(order):
        print(f"resuming  {len(order) - pictures_left:,} of {len(order):,} pictures are done", flush=True)
    compiles = target.images is not None  # an encoder does; what is imported only has to be read
    with progress.counted(pictures_left, "picture", compiles=compiles) as done, _named(target.out):
        while left:
            still_left = []
            for number in left:
                with _claim(target.part(number).with_suffix(".lock")) as is_ours:
                    if is_ours and not target.part(number).exists():
                        _write_part(target, number, parts[number], make, done, strict=strict)
                        continue
                if target.part(number).exists() or target.is_finished:
                    done(len(parts[number]))
                else:
                    still_left.append(number)
            if len(still_left) == len(left):
                time.sleep(WAIT_SECONDS)  # other processes are at work on them
            left = still_left
    with _named(target.out):
        _finish(target, parts)
        _write_names(target)


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Context in which an error of writing that names no file names this one: that of a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def _claim(path: pathlib.Path, *, wait: bool = False) -> Iterator[bool]:
    """Context with whether this process alone holds a file; the system lets go when the process ends."""
    try:
        file = path.open("a")
    except FileNotFoundError:  # another process has finished everything
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _begin(target: Target) -> None:
    """Makes the directory, or checks that it is one of the same plan."""
    out, plan_path = target.out, target.unfinished / "plan.json"
    if not target.is_finished and not plan_path.exists():
        if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= {".unfinished"}):
            raise InputError(f"{out} exists and is not empty; expected a new directory")
        try:
            target.unfinished.mkdir(parents=True, exist_ok=True)
        except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
            raise InputError(f"{out}: cannot be written ({error.strerror})") from error
        with _claim(target.unfinished / "begin.lock", wait=True):
            if not plan_path.exists() and not target.is_finished:
                _check_space(target)
                for split, pictures in target.plan.items():
                    target.features(split).allocate(len(pictures))
                _write_json(plan_path, {**target.source._asdict(), "plan": target.digest()})
    path = out / feature_source.FILE if target.is_finished else plan_path
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
        found, plan = FeatureSource(*(begun[field] for field in FeatureSource._fields)), begun["plan"]
    except (PermissionError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged, or cannot be read ({error!r}); expected another --out") from error
    if found != target.source:
        raise InputError(f"{out} holds features of {found}, not of {target.source}; expected another --out")
    if plan != target.digest():
        raise InputError(f"{out} holds features of other pictures or captions; expected another --out")


def _check_space(target: Target) -> None:
    regions, width = target.row_shape
    needed = sum(map(len, target.plan.values())) * regions * (width + 4) * 4
    free = shutil.disk_usage(target.unfinished).free
    print(f"writing   {target.out}: {_megabytes(needed)}; {_megabytes(free)} are free", flush=True)
    if needed > free:
        raise InputError(f"{target.out}: the disk has {_megabytes(free)} free; expected {_megabytes(needed)}")


def _megabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _write_part(
    target: Target, number: int, part: Part, make: Maker, done: Callable[[int], None], *, strict: bool
) -> None:
    """Makes the regions of a part's pictures and writes them; calls `done` with 1 after each."""
    left_out: list[str] = []
    features: dict[str, list[tuple[int, np.ndarray]]] = {}
    rows: list[dict[str, np.ndarray]] = []
    pictures = [target.plan[split][place] for split, place in part]
    for (split, place), made in zip(part, make(pictures), strict=True):
        if isinstance(made, InputError):
            if strict:
                raise made
            progress.say(f"left out  {made}")
            left_out.append(str(made))
        else:
            left_out.append("")
            features.setdefault(split, []).append((place, made.regions.features))
            rows.append(_beside(made, target.row_shape[0]))
        done(1)
    for split, its_features in features.items():
        target.features(split).write(its_features)
    columns: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}
    with whole_file(target.part(number)) as partial, partial.open("wb") as file:
        np.savez(file, left_out=np.array(left_out), **columns)


def _beside(made: Made, max_regions: int) -> dict[str, np.ndarray]:
    """Returns all that is known of a picture beside its features, padded with zeros to `max_regions`."""

    def padded(values: np.ndarray, dtype: type) -> np.ndarray:
        row = np.zeros((max_regions, *values.shape[1:]), dtype)
        row[: len(values)] = values
        return row

    regions = made.regions
    found = {
        "num_regions": np.int32(len(regions.features)),
        "boxes": padded(regions.boxes, np.float32),
        "image_sizes": np.array(made.size, np.int32),
    }
    for name in ("classes", "class_scores", "attributes", "attribute_scores"):
        values = getattr(regions, name)
        if values is not None:
            found[name] = padded(values, np.float32 if name.endswith("scores") else np.int32)
    return found


def _finish(target: Target, parts: Sequence[Part]) -> None:
    """Moves everything into place, where no other process has."""
    with _claim(target.unfinished / "finish.lock", wait=True) as is_ours:
        if is_ours and not target.is_finished:
            left_out, columns = _gather(target, parts)
            counts = {}
            for split, pictures in target.plan.items():
                kept = _finish_split(target, split, [left_out[split, i] for i in range(len(pictures))], columns)
                counts[split] = kept
            names = {target.plan[split][place].name: why for (split, place), why in left_out.items() if why}
            if target.images is not None and not (target.out / "images").exists():
                (target.out / "images").symlink_to(target.images.resolve())
            _write_json(
                target.out / feature_source.FILE,
                {
                    **target.source._asdict(),
                    "program": f"mhcvse_jax {__version__}",
                    "pictures": counts,
                    "left_out": names,
                    "plan": target.digest(),
                },
            )
            shutil.rmtree(target.unfinished)
    print(f"finished  {target.out}: {target.source}")
    content = json.loads((target.out / feature_source.FILE).read_text(encoding="utf-8"))
    counted = ", ".join(f"{split} {number:,}" for split, number in content["pictures"].items())
    print(f"pictures  {counted}; left out: {len(content['left_out']) or 'none'}", flush=True)
    shutil.rmtree(target.unfinished, ignore_errors=True)  # left by a process that was killed just then


_Columns = dict[tuple[str, int], dict[str, np.ndarray]]
"""By split and place, what lies beside a picture's features."""


def _gather(target: Target, parts: Sequence[Part]) -> tuple[dict[tuple[str, int], str], _Columns]:
    left_out: dict[tuple[str, int], str] = {}
    columns: _Columns = {}
    for number, part in enumerate(parts):
        with np.load(target.part(number), allow_pickle=False) as saved:
            held = {name: saved[name] for name in saved.files}
        left_out |= dict(zip(part, map(str, held.pop("left_out")), strict=True))
        made = [key for key in part if not left_out[key]]
        columns |= {key: {name: values[i] for name, values in held.items()} for i, key in enumerate(made)}
    return left_out, columns


def _finish_split(target: Target, split: str, left_out: Sequence[str], columns: _Columns) -> int:
    """Writes the files of a split; returns how many pictures it has."""
    is_kept = np.array([not why for why in left_out])
    if not is_kept.any():
        raise InputError(f"{target.out}: none of the {len(left_out):,} pictures of {split} can be used: {left_out[0]}")
    unfinished = target.features(split)
    kept = [int(place) for place in unfinished.keep(is_kept)]
    prefix = f"{target.out}/{split}_"
    if unfinished.path.exists():
        unfinished.path.replace(f"{prefix}ims.npy")
    for name in columns[split, kept[0]]:
        values = np.stack([columns[split, place][name] for place in kept])
        is_full = name == "num_regions" and (values == target.row_shape[0]).all()
        says_nothing = is_full or (name in ("boxes", "image_sizes") and not values.any())
        if not says_nothing:
            with whole_file(pathlib.Path(f"{prefix}{name}.npy")) as partial:
                write_array(partial, values)
    pictures = [target.plan[split][place] for place in kept]
    texts = {
        "ids": [picture.image_id for picture in pictures],
        "image_names": [picture.name for picture in pictures],
        "caps": [caption for picture in pictures for caption in picture.captions],
    }
    if any(len(picture.captions) != SCAN_CAPTIONS for picture in pictures):
        texts["caption_images"] = [picture.image_id for picture in pictures for _ in picture.captions]
    if all(len(picture.captions) == len(picture.caption_ids) for picture in pictures):
        texts["capids"] = [caption_id for picture in pictures for caption_id in picture.caption_ids]
    for name, lines in texts.items():
        with whole_file(pathlib.Path(f"{prefix}{name}.txt")) as partial:
            partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(pictures)


def _write_names(target: Target) -> None:
    """Writes the names of classes and attributes, also where the directory was finished without them.

    Raises:
      InputError: the regions have no classes or attributes, or a region has one that has no name.
    """
    for kind, names in target.names.items():
        found = sorted(target.out.glob(f"*_{kind}.npy"))
        if not found:
            raise InputError(f"{target.out}: its regions have no {kind}; expected none of their names")
        path = target.out / region_names.FILES[kind]
        for numbers in found:
            region_names.check_names(path, names, np.load(numbers, mmap_mode="r", allow_pickle=False))
        with whole_file(path) as partial:
            partial.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _write_json(path: pathlib.Path, content: dict) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
