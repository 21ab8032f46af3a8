import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.safe_pickle import load_arrays, load_object

RNG = np.random.default_rng(5)
HELD = {
    "counts": RNG.integers(0, 99, (3, 5)),
    "fortran": np.asfortranarray(RNG.normal(size=(2, 7)).astype(np.float32)),
    "big": RNG.normal(size=3).astype(">f8"),
    "flags": np.array([True, False]),
    "names": np.array(["man", "straße"]),
    "bytes": np.array([b"a", b"bc"]),
    "empty": np.zeros((0, 3)),
    "scalar": np.float32(0.25),
    "complex": 1 - 2j,
    "nested": [1, (2.5, "dog", None, True), {3: b"\xff"}, np.arange(3)],
}


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    else:
        np.testing.assert_array_equal(found, expected)
        if isinstance(expected, np.ndarray):
            assert found.dtype == expected.dtype
            assert found.flags.writeable


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_comes_back_as_it_was(tmp_path, protocol):
    path = tmp_path / "held.pkl"
    path.write_bytes(pickle.dumps(HELD, protocol))
    assert_same(load_arrays(path), HELD)


def test_numpy_1_module_paths(tmp_path):
    path = tmp_path / "old.pkl"
    new = pickle.dumps(HELD, 2)
    assert b"numpy._core" in new
    path.write_bytes(new.replace(b"numpy._core", b"numpy.core"))
    assert_same(load_arrays(path), HELD)


def test_python_2_writes_bytes_as_text(tmp_path):
    array = RNG.normal(size=(2, 3))
    data = array.tobytes()
    # What Python 2 wrote for an array: its data as a byte string (BINSTRING), not through _codecs.
    stream = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(data)) + data + b"tb."
    )
    path = tmp_path / "python2.pkl"
    path.write_bytes(stream)
    assert_same(load_arrays(path), array)


class Runs:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    ("harm", "name"),
    [
        (Runs(os.mkdir, "{path}"), "posix.mkdir|nt.mkdir"),
        (Runs(eval, "__import__('os').mkdir('{path}')"), "builtins.eval|__builtin__.eval"),
        (Runs(getattr, "x", "y"), "builtins.getattr|__builtin__.getattr"),
        (Runs(np.load, "{path}"), "numpy.load"),
        (OrderedDict(a=1), "collections.OrderedDict"),
    ],
)
def test_a_forbidden_global_is_named_and_not_called(tmp_path, protocol, harm, name):
    path, trace = tmp_path / "harm.pkl", tmp_path / "trace"
    if isinstance(harm, Runs):
        function, args = harm.call
        harm = Runs(function, *(arg.format(path=trace) for arg in args))
    path.write_bytes(pickle.dumps({"nums": np.arange(3), "harm": harm}, protocol))
    with pytest.raises(InputError, match=rf"harm\.pkl: holds ({name}), expected only arrays"):
        load_arrays(path)
    assert not trace.exists()


def test_bytes_are_never_taken_for_pointers(tmp_path):
    # numpy's own __setstate__ would clear the object flags and make objects of these bytes: a crash.
    class Dtype:
        def __reduce__(self):
            return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)

    class Array:
        def __reduce__(self):
            reconstruct, args, _ = np.zeros(1).__reduce__()
            return reconstruct, args, (1, (1,), Dtype(), False, b"\x11" * 8)

    path = tmp_path / "pointers.pkl"
    path.write_bytes(pickle.dumps(Array(), 2))
    with pytest.raises(InputError, match=r"pointers\.pkl: holds an array of dtype object"):
        load_arrays(path)


def test_object_arrays_are_refused(tmp_path):
    path = tmp_path / "objects.pkl"
    path.write_bytes(pickle.dumps(np.array([{}, []], object)))
    with pytest.raises(InputError, match="dtype object"):
        load_arrays(path)


@pytest.mark.parametrize("bare", [np.dtype("f4"), {1, 2}])
def test_other_things_are_refused(tmp_path, bare):
    path = tmp_path / "bare.pkl"
    path.write_bytes(pickle.dumps([bare]))
    with pytest.raises(InputError, match=r"bare\.pkl: holds an object of type"):
        load_arrays(path)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_file_cut_anywhere_is_refused(tmp_path, protocol):
    whole = pickle.dumps(HELD, protocol)
    path = tmp_path / "cut.pkl"
    for size in [0, 1, *range(2, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.pkl: "):
            load_arrays(path)


def test_a_list_that_holds_itself_and_a_missing_file(tmp_path):
    endless = []
    endless.append(endless)
    (tmp_path / "endless.pkl").write_bytes(pickle.dumps(endless))
    with pytest.raises(InputError, match=r"endless\.pkl: not a complete pickle of arrays"):
        load_arrays(tmp_path / "endless.pkl")
    with pytest.raises(InputError, match=r"none\.pkl: cannot be read"):
        load_arrays(tmp_path / "none.pkl")


def test_random_damage_gives_arrays_or_an_input_error(tmp_path):
    whole = pickle.dumps({"nums": np.arange(7), "more": [1.5, "x"]}, 2)
    path = tmp_path / "damaged.pkl"
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[RNG.integers(len(whole))] = RNG.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            load_arrays(path)
        except InputError:
            refused += 1
    assert refused > 50


class Held:
    """A class that the reader is not to look for."""

    def __init__(self):
        self.array, self.name = np.arange(3), "dog"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_object_is_read_by_its_attributes(tmp_path, protocol):
    path = tmp_path / "held.pkl"
    content = pickle.dumps(Held(), protocol)
    name = Held.__module__.encode()
    if protocol < 4:  # by its length where a newer protocol names a module
        content = content.replace(b"c" + name + b"\n", b"cno.such.module\n")
        assert b"no.such.module" in content
    path.write_bytes(content)
    assert_same(load_object(path, "Held"), {"array": np.arange(3), "name": "dog"})
    with pytest.raises(InputError, match=r"held\.pkl: holds .*\.Held, expected only an object of class Other"):
        load_object(path, "Other")


def test_one_object_is_all_that_may_stand_there(tmp_path):
    path = tmp_path / "held.pkl"
    path.write_bytes(pickle.dumps([Held()]))
    with pytest.raises(InputError, match=r"holds an object of type list, expected only an object of class Held"):
        load_object(path, "Held")
    path.write_bytes(pickle.dumps(Runs(os.mkdir, str(tmp_path / "trace"))))
    with pytest.raises(InputError, match=r"holds (posix|nt)\.mkdir"):
        load_object(path, "Held")
    assert not (tmp_path / "trace").exists()


def test_a_value_that_is_nested_in_itself_without_end_is_refused(tmp_path):
    """Forty levels of two references each are two hundred bytes, and 2**40 values."""
    value = [1]
    for _ in range(40):
        value = [value, value]
    path = tmp_path / "nested.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match=r"nested\.pkl: holds more than 1,000,000 values"):
        load_arrays(path)
