"""Arrays from pickles of unknown origin, without running what is in them.

An allow list of NumPy's own functions is not enough: a pickle may set the flags of an object dtype so that
its bytes are taken for pointers. Here the names that NumPy writes lead to small stand-ins, which build
plain arrays of numbers or strings from the bytes and nothing else.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from mhcvse_jax.errors import InputError

_PLAIN_KINDS = "biufcSU"  # booleans, numbers, bytes, strings


def load_arrays(path: str | Path) -> Any:
    """Arrays, numbers, strings, dicts, lists and tuples in a pickle, as they were nested there.

    Reads what NumPy 1 and 2 and Python 2 and 3 wrote, in every pickle protocol.

    Raises:
      InputError: the file is missing, damaged or cut short, or holds anything else: then the message
        names the class or function that was asked for, which is not called.
    """
    try:
        with open(path, "rb") as file:
            return _resolve(_ArrayUnpickler(file, encoding="latin1").load())
    except _Forbidden as error:
        raise InputError(f"{path}: holds {error}, expected only arrays, numbers, strings and containers") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle fails in almost any way
        raise InputError(f"{path}: not a complete pickle of arrays ({type(error).__name__}: {error})") from error


class _Forbidden(Exception):  # noqa: N818  (a signal inside this file)
    """What the pickle asked for and may not have."""


class _Dtype:
    """Stands for numpy.dtype: a plain one, whose state may only be a byte order."""

    def __init__(self, name: str, *_: Any):
        self.dtype = np.dtype(name)
        if self.dtype.kind not in _PLAIN_KINDS:
            raise _Forbidden(f"an array of dtype {self.dtype}")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for the empty array that a pickle makes first and fills by its state."""

    value: np.ndarray

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.value = _from_buffer(data, dtype, shape, "F" if is_fortran else "C")


def _from_buffer(data: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(_encode(data), dtype.dtype).reshape(shape, order=order).copy(order="K")


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    return _from_buffer(data, dtype, (), "C")[()]


def _encode(data: bytes | str, *_: Any) -> bytes:
    """Bytes as they were: Python 2 and protocols below 3 wrote them as text."""
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


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise _Forbidden(f"{module}.{name}")
        return _STAND_INS[module, name]


def _resolve(value: Any) -> Any:
    """Equal nesting with arrays in the place of their stand-ins."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolve(item) for item in value)
    if value is None or isinstance(value, int | float | complex | str | bytes | np.ndarray | np.generic):
        return value
    raise _Forbidden(f"an object of type {type(value).__name__}")
