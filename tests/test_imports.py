"""Imports run one way, from the commands down; what a room may not know it cannot import."""

import ast
import importlib
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "mhcvse_jax"
FLOORS = (
    {"run"},
    {"comparison", "drawing", "reporting", "browser"},
    {"indexing"},
    {"experiment"},
    {"config", "weights"},
    {"training"},
    {"evaluation"},
    {"retrieval"},
    {"importers", "encoders"},
    {"precompute"},
    {"data", "losses"},
    {"models", "scenes", "detection", "backbones"},
    {"layers"},
    {"terminal"},
    {"devices"},
    {"files"},
    {"errors"},
)
"""Rooms of the package, the highest first; those of one floor do not know each other."""
EARLIER_NAMES = {"data/check.py": "check_data", "data/build_tfds.py": "build_tfds"}
"""Commands that once stood in a room and can be started there still."""
PUBLIC = "__init__.py"
"""The names that users import, each from its room when it is asked for."""
COMMANDS = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "errors"}
FLOOR = {"mhcvse_jax": len(FLOORS)} | {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(path):
    """Yields each module of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mhcvse_jax":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mhcvse_jax")


def room_of(module):
    """Returns the room of a module, `mhcvse_jax` for what stands in the package itself, a command by its name."""
    room = [*module.split("."), ""][1]
    return room if room in FLOOR or room in COMMANDS or (PACKAGE / room).is_dir() else "mhcvse_jax"


def test_no_import_runs_up():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).as_posix() in {*EARLIER_NAMES, PUBLIC}:
            continue
        here = room_of(".".join(("mhcvse_jax", *path.relative_to(PACKAGE).with_suffix("").parts)))
        assert here in FLOOR or here in COMMANDS, f"{here}: no floor; expected the room in FLOORS"
        for module in imports(path):
            there = room_of(module)
            is_below = there in FLOOR and (here in COMMANDS or FLOOR[there] > FLOOR[here])
            if there != here and not is_below:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not wrong


@pytest.mark.parametrize(("path", "command"), EARLIER_NAMES.items())
def test_commands_have_their_earlier_names(path, command):
    earlier = importlib.import_module("mhcvse_jax." + path.removesuffix(".py").replace("/", "."))
    assert earlier.main is importlib.import_module(f"mhcvse_jax.{command}").main
