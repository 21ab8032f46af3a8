"""Arrays from pickles of unknown origin, without running code from them.

To allow NumPy's own functions and nothing else is not enough: a pickle may set the flags of an object dtype so that
its bytes are taken for pointers. Here the names that NumPy writes lead to small stand-ins, which build plain arrays of
numbers or strings from the bytes and do nothing else. In the same way, an object of a class that a caller admits
becomes a dict of its attributes.
"""

import contextlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.downloads import check_no_web_page

_PLAIN_KINDS = "biufcSU"  # booleans, numbers, bytes, strings
_MOST_VALUES = 1_000_000  # in a pickle, each counted wherever it occurs: a few bytes can nest one in itself endlessly


def load_arrays(path: str | Path) -> Any:
    """Returns the arrays, numbers, strings, dicts, lists and tuples in a pickle, nested as they are there.

    Reads what NumPy 1 and 2 and Python 2 and 3 wrote, in every pickle protocol.

    Raises:
      InputError: the file is missing, damaged or cut short, or holds anything else. The message then names the class or
        function that the pickle asks for, which is not called.
    """
    check_no_web_page(path)
    whole, admitted = "a complete pickle of arrays", "arrays, numbers, strings and containers"
    with _refusing(path, whole, admitted), open(path, "rb") as file:
        return plain(load_stand_ins(file, {}))


def load_object(path: str | Path, class_name: str) -> dict[str, Any]:
    """Returns the attributes of a pickle's one object, of a class of this name in any module, which is not imported.

    Raises:
      InputError: as in `load_arrays`, or the pickle holds something else.
    """
    check_no_web_page(path)
    expected = f"an object of class {class_name}"
    with _refusing(path, f"a complete pickle of {expected}", f"{expected} of numbers, strings and containers"):
        with open(path, "rb") as file:
            held = load_stand_ins(file, _ObjectNames(class_name))
        if isinstance(held, Attributes):
            return plain(held)
        raise Forbidden(f"an object of type {type(held).__name__}")


@contextlib.contextmanager
def _refusing(path: str | Path, whole: str, admitted: str) -> Iterator[None]:
    """Context that turns whatever goes wrong in reading a pickle into an InputError, which says what was expected."""
    try:
        yield
    except Forbidden as error:
        raise InputError(f"{path}: holds {error}, expected only {admitted}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle fails in almost any way
        raise InputError(f"{path}: not {whole} ({type(error).__name__}: {error})") from error


class Forbidden(Exception):  # noqa: N818  (a signal between readers)
    """Says what a pickle asked for and may not have."""


class StandIn:
    """What is made in the place of an object of the pickle."""

    def plain(self) -> Any:
        """Returns what it stands for, as plain types, or as containers that hold stand-ins.

        Raises:
          Forbidden: it stands only for a part of something.
        """
        raise Forbidden(f"an object of type {type(self).__name__.lstrip('_')}")

    def __setstate__(self, state: Any) -> None:
        """Raises Forbidden: without this method, a pickle could set any attribute."""
        raise Forbidden(f"a state for {type(self).__name__.lstrip('_')}")


class _Name:
    """What a name in a pickle leads to: it can be called, and nothing can be set on what is behind it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Forbidden("a state for a function")


class Attributes(StandIn):
    """Stands for an object of any class, by its attributes alone."""

    attributes: Any = None  # an object without attributes sets no state

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:  # __dict__ and __slots__
            state = {**(state[0] or {}), **(state[1] or {})}
        self.attributes = state

    def plain(self) -> dict[str, Any]:
        return self.attributes or {}


class _Dtype(StandIn):
    """Stands for a numpy.dtype: a plain one, whose state may only be a byte order."""

    def __init__(self, name: str, *_: Any):
        self.dtype = np.dtype(name)
        if self.dtype.kind not in _PLAIN_KINDS:
            raise Forbidden(f"an array of dtype {self.dtype}")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(StandIn):
    """Stands for the empty array that a pickle makes first and then fills by its state."""

    value: np.ndarray

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.value = _read(data, dtype, shape, "F" if is_fortran else "C")

    def plain(self) -> np.ndarray:
        return self.value


def _from_buffer(data: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> _Array:
    array = _Array()
    array.value = _read(data, dtype, shape, order)
    return array


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    return _read(data, dtype, (), "C")[()]


def _read(data: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(_encode(data), dtype.dtype).reshape(shape, order=order).copy(order="K")


def _encode(data: bytes | str, *_: Any) -> bytes:
    """Returns bytes as they were: Python 2, and protocols below 3, wrote them as text."""
    return data.encode("latin1") if isinstance(data, str) else data


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): "ndarray",  # only ever an argument
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda *_: b"",  # how protocols below 3 write empty bytes
    ("__builtin__", "complex"): complex,
    ("builtins", "complex"): complex,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _ObjectNames(dict[tuple[str, str], Any]):
    """What the pickle of one object may ask for: its class, in any module, and what old protocols make objects with."""

    def __init__(self, class_name: str):
        super().__init__()
        for copyreg in ("copyreg", "copy_reg"):
            self[copyreg, "_reconstructor"] = lambda stand_in, *_: stand_in()
        for builtins in ("builtins", "__builtin__"):
            self[builtins, "object"] = "object"  # only ever an argument
        self._class_name = class_name

    def __missing__(self, key: tuple[str, str]) -> Any:
        if key[1] != self._class_name:
            raise KeyError(key)
        return Attributes


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], admitted: Mapping[tuple[str, str], Any], storage: Callable | None):
        super().__init__(file, encoding="latin1")
        self._admitted = admitted
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        for stand_ins in (_STAND_INS, self._admitted):
            try:
                found = stand_ins[module, name]
            except KeyError:
                continue
            # Protocol 2 makes an object from its class itself; everything else is only called.
            return _Name(found) if callable(found) and found is not Attributes else found
        raise Forbidden(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None:
            raise Forbidden("a reference to something outside it")
        return self._storage(pid)


def load_stand_ins(
    file: IO[bytes], admitted: Mapping[tuple[str, str], Any], storage: Callable[[Any], Any] | None = None
) -> Any:
    """Returns what the next pickle of a file holds, with stand-ins; `plain` turns them into plain types.

    Args:
      file: open at the start of the pickle; it is read to the pickle's end.
      admitted: what further names, each (module, name), lead to, besides those of NumPy.
      storage: what a persistent id leads to; without it, none may occur.

    Raises:
      Forbidden: the pickle asks for another name. Damage raises almost anything.
    """
    return _Unpickler(file, admitted, storage).load()


def plain(value: Any) -> Any:
    """Returns the value with plain types in the place of its stand-ins.

    Raises:
      Forbidden: it holds something else, or too many values.
    """
    num_values = 0

    def walk(value: Any) -> Any:
        nonlocal num_values
        num_values += 1
        if num_values > _MOST_VALUES:
            raise Forbidden(f"more than {_MOST_VALUES:,} values")
        if isinstance(value, StandIn):
            return walk(value.plain())
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(walk(item) for item in value)
        if value is None or isinstance(value, int | float | complex | str | bytes | np.ndarray | np.generic):
            return value
        raise Forbidden(f"an object of type {type(value).__name__}")

    return walk(value)
