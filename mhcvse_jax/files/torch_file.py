"""Files of `torch.save` as NumPy arrays, and back: read without PyTorch, and without running any code in them.

Two layouts exist. Since PyTorch 1.6 a file is a zip archive: `NAME/data.pkl`, a pickle whose tensors refer to storages
by number, and `NAME/data/0`, ... with their bytes. Before, it was five pickles in a row, the fourth of them that
one, and the bytes of the storages after them.
"""

import io
import math
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files import safe_pickle
from mhcvse_jax.files.downloads import check_no_web_page
from mhcvse_jax.files.safe_pickle import Attributes, Forbidden, StandIn

_DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STARTS = (b"PK\x03\x04", pickle.dumps(_LEGACY_MAGIC, protocol=2))


def is_torch_file(path: str | Path) -> bool:
    """Whether a file begins as those of `torch.save` do, in either layout.

    Raises:
      InputError: the file cannot be read.
    """
    check_no_web_page(path)
    try:
        with open(path, "rb") as file:
            return file.read(max(map(len, _STARTS))).startswith(_STARTS)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_torch_file(path: str | Path) -> Any:
    """Returns what `torch.save` wrote: tensors as arrays, whatever device they were on; objects as dicts of attributes.

    The classes and functions that the pickle may ask for are those of tensors, OrderedDict, argparse.Namespace,
    paths, devices, and NumPy's arrays and numbers. None of them is called: each leads to a stand-in of ours.

    Raises:
      InputError: the file is missing, damaged, cut short, of another kind, or asks for anything else; then the
        message names what it asks for.
    """
    check_no_web_page(path)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                return _read_zip(file)
            if tarfile.is_tarfile(path):
                raise InputError(f"{path}: the tar layout of PyTorch before 0.2; expected a file of a later one")
            return _read_legacy(file)
    except Forbidden as error:
        raise InputError(
            f"{path}: holds {error}, which is not read; expected tensors, numbers, strings, containers and a Namespace"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except InputError:
        raise
    except Exception as error:  # damage shows in almost any way
        raise InputError(f"{path}: not a whole file of torch.save ({type(error).__name__}: {error})") from error


class _Storage(StandIn):
    """The numbers that tensors are views of; they may be read after the tensors are known."""

    def __init__(self, dtype: np.dtype, num: int):
        self.dtype = dtype
        self.num = num
        self.values: np.ndarray | None = None

    def fill(self, data: bytes) -> None:
        if len(data) != self.num * self.dtype.itemsize:
            raise ValueError(f"a storage has {len(data)} bytes, expected {self.num * self.dtype.itemsize}")
        self.values = np.frombuffer(data, self.dtype)


class _Tensor(StandIn):
    """Stands for a tensor."""

    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any):
        self._view = storage, offset, size, stride

    def __setstate__(self, _: Any) -> None:
        """Leaves out what was attached to the tensor."""

    def plain(self) -> np.ndarray:
        """Returns a view of the storage, so that a tensor that is named often takes no more memory."""
        storage, offset, size, stride = self._view
        if not isinstance(storage, _Storage) or storage.values is None:
            raise ValueError("a tensor without its storage")
        values = storage.values
        if any(type(number) is not int for number in (offset, *size, *stride)):  # others may wrap around
            raise ValueError(f"a tensor {size} with stride {stride} at {offset}, expected whole numbers")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        is_within = min(offset, *size, *stride, 0) >= 0 and (0 in size or last < len(values))
        if not is_within or math.prod(size) > len(values):
            raise ValueError(f"a tensor {size} with stride {stride} at {offset} of a storage of {len(values)} numbers")
        if 0 in size:
            return np.zeros(size, values.dtype)
        strides = [step * values.dtype.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(values[offset:], size, strides, writeable=False)


class _OrderedDict(dict[Any, Any]):
    """Stands for collections.OrderedDict; what was attached to it, a state dict's `_metadata`, is left out."""

    def __setstate__(self, _: Any) -> None:
        pass


class _Text(StandIn):
    """Stands for a path or a device: its parts, joined."""

    def __init__(self, *parts: Any):
        self._parts = parts

    def plain(self) -> str:
        return "/".join(map(str, self._parts))


class _StorageType(NamedTuple):
    dtype: str


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _OrderedDict,
    ("argparse", "Namespace"): Attributes,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): tuple,
    ("torch", "device"): _Text,
    **{("torch", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
    **{("torch.cuda", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
    **{
        (module, name): _Text
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    ("copyreg", "_reconstructor"): lambda stand_in, *_: stand_in(),
    ("copy_reg", "_reconstructor"): lambda stand_in, *_: stand_in(),
    ("builtins", "object"): "object",  # only ever an argument
    ("__builtin__", "object"): "object",
}


def _read_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("the archive has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("the archive is compressed")
        byteorder = archive.read(folder + "byteorder") if folder + "byteorder" in names else b"little"
        storages: dict[str, _Storage] = {}

        def find(pid: Any) -> _Storage:
            kind, storage_type, key, _, num = pid
            if kind != "storage":
                raise Forbidden(f"a reference to {kind!r}")
            if key not in storages:
                storages[key] = _Storage(_dtype(storage_type, byteorder == b"little"), num)
                storages[key].fill(archive.read(f"{folder}data/{key}"))
            return storages[key]

        held = safe_pickle.load_stand_ins(io.BytesIO(archive.read(pickles[0])), _ADMITTED, find)
        return safe_pickle.plain(held)


def _read_legacy(file: IO[bytes]) -> Any:
    def load(admitted: Mapping[tuple[str, str], Any]) -> Any:
        return safe_pickle.load_stand_ins(file, admitted, find)

    storages: dict[Any, _Storage] = {}
    is_little = True

    def find(pid: Any) -> _Storage:
        kind, storage_type, key, _, num, *view = pid
        if kind != "storage":
            raise Forbidden(f"a reference to {kind!r}")
        if any(view):
            raise Forbidden("a view of a storage, as PyTorch before 0.4 wrote it")
        return storages.setdefault(key, _Storage(_dtype(storage_type, is_little), num))

    if load({}) != _LEGACY_MAGIC or load({}) != _LEGACY_PROTOCOL:
        raise ValueError("it begins otherwise")
    is_little = bool(load({}).get("little_endian", True))
    held = load(_ADMITTED)
    for key in load({}):
        storage = storages[key]
        (num,) = struct.unpack("<q" if is_little else ">q", _exactly(file, 8))
        storage.fill(_exactly(file, num * storage.dtype.itemsize))
    return safe_pickle.plain(held)


def _exactly(file: IO[bytes], num: int) -> bytes:
    data = file.read(num)
    if len(data) != num:
        raise EOFError("it ends early")
    return data


def _dtype(storage_type: Any, is_little: bool) -> np.dtype:
    if not isinstance(storage_type, _StorageType):
        raise Forbidden(f"a storage of {storage_type!r}")
    return np.dtype(storage_type.dtype).newbyteorder("<" if is_little else ">")


class OpenDict(dict[str, Any]):
    """A dict that is written as an OrderedDict whose items are its attributes too: `opt.margin`, `opt["margin"]`."""


def write_torch_file(path: str | Path, content: Any) -> None:
    """Writes what `torch.load(path, weights_only=True)` reads: float32 and int64 arrays come back as CPU tensors.

    The content is made of dicts (as OrderedDict), lists, tuples, strings, whole numbers, floats, truth values, None
    and arrays; arrays that are one object share a storage.
    """
    pickler = _TensorPickler()
    data = pickler.dump(content)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for number, array in enumerate(pickler.arrays):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        archive.writestr("archive/version", "3\n")


class _TensorPickler:
    """Writes a pickle's opcodes one by one: `pickle` itself would want to import PyTorch to name its functions."""

    def __init__(self):
        self.arrays: list[np.ndarray] = []  # the storages, little-endian
        self._numbers: dict[int, int] = {}  # of the storage of each array, by its identity
        self._parts: list[bytes] = []

    def dump(self, content: Any) -> bytes:
        self._parts = [pickle.PROTO + b"\x02"]
        self._write(content)
        self._parts.append(pickle.STOP)
        return b"".join(self._parts)

    def _write(self, value: Any) -> None:
        put = self._parts.append
        if isinstance(value, np.ndarray):
            self._write_tensor(value)
        elif isinstance(value, dict):
            self._write_dict(value)
        elif isinstance(value, list | tuple):
            put((pickle.EMPTY_LIST if isinstance(value, list) else b"") + pickle.MARK)
            for item in value:
                self._write(item)
            put(pickle.APPENDS if isinstance(value, list) else pickle.TUPLE)
        elif isinstance(value, str):
            encoded = value.encode()
            put(pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded)
        elif value is None or isinstance(value, bool):
            put({None: pickle.NONE, True: pickle.NEWTRUE, False: pickle.NEWFALSE}[value])
        elif isinstance(value, int):
            encoded = pickle.encode_long(value)
            put(pickle.LONG1 + bytes([len(encoded)]) + encoded)
        elif isinstance(value, float):
            put(pickle.BINFLOAT + struct.pack(">d", value))
        else:
            raise TypeError(f"{type(value).__name__} cannot be written")

    def _write_dict(self, items: dict[str, Any]) -> None:
        self._write_items(pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE, items)
        if isinstance(items, OpenDict):
            self._write_items(pickle.EMPTY_DICT, items)
            self._parts.append(pickle.BUILD)

    def _write_items(self, empty: bytes, items: dict[str, Any]) -> None:
        self._parts.append(empty + pickle.MARK)
        for key, item in items.items():
            self._write(key)
            self._write(item)
        self._parts.append(pickle.SETITEMS)

    def _write_tensor(self, array: np.ndarray) -> None:
        put = self._parts.append
        if id(array) not in self._numbers:
            self._numbers[id(array)] = len(self.arrays)
            self.arrays.append(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")))
        storage = {"f4": "FloatStorage", "i8": "LongStorage"}[array.dtype.str[1:]]
        stride = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        put(pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + pickle.MARK)
        self._write("storage")
        put(pickle.GLOBAL + b"torch\n" + storage.encode() + b"\n")
        self._write(str(self._numbers[id(array)]))
        self._write("cpu")
        self._write(array.size)
        put(pickle.TUPLE + pickle.BINPERSID)
        for item in (0, array.shape, tuple(stride), False, {}):
            self._write(item)
        put(pickle.TUPLE + pickle.REDUCE)
