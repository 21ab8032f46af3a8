"""How a configuration key is declared: its default, meaning and range, and who may change it."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

Role: TypeAlias = Literal["same", "free"]
SAME: Role = "same"
FREE: Role = "free"


class Allowed(NamedTuple):
    """The values that a key may have."""

    expected: str  # in words, after "expected"
    holds: Callable[[Any], bool]
    choices: tuple[Any, ...] = ()  # all of them, where they can be listed
    infinite: bool = False  # whether infinity is one of them


class Key(NamedTuple):
    """A configuration key."""

    default: Any
    meaning: str
    allowed: Allowed
    resume: Role = SAME  # FREE: a run may go on with another value
    start: Role = FREE  # SAME: a run needs the value of the run that it starts from, if its model reads the key
    row: Role = SAME  # FREE: `compare` gathers runs that differ in it in one row


def wrong(value: Any, allowed: Allowed) -> str | None:
    """Returns what was expected instead of a value; None if the value is allowed."""
    if isinstance(value, float) and not math.isfinite(value) and not (allowed.infinite and value > 0):
        return f"{allowed.expected}, and finite"
    try:
        return None if allowed.holds(value) else allowed.expected
    except TypeError:  # of another type: text is not more than 0
        return allowed.expected


def one_of(*choices: str) -> Allowed:
    """Any one of these texts."""
    return Allowed(f"one of {', '.join(map(repr, choices))}", lambda value: value in choices, choices)


def some_of(*choices: str) -> Allowed:
    """One or more of these texts, each at most once."""

    def holds(values: Sequence[Any]) -> bool:
        return bool(values) and all(value in choices and values.count(value) == 1 for value in values)

    return Allowed(f"one or more of {', '.join(choices)}, once each", holds, choices)


def more_than(limit: float) -> Allowed:
    """Numbers above a limit."""
    return Allowed(f"more than {limit}", lambda value: value > limit)


def at_least(limit: float, *, infinite: bool = False) -> Allowed:
    """Numbers from a limit on."""
    return Allowed(f"{limit} or more", lambda value: value >= limit, infinite=infinite)


def share() -> Allowed:
    """Numbers from 0 to 1."""
    return Allowed("a share between 0 and 1", lambda value: 0 <= value <= 1)


def below_one() -> Allowed:
    """Numbers from 0 to less than 1."""
    return Allowed("0 or more, and less than 1", lambda value: 0 <= value < 1)


def number() -> Allowed:
    """Any finite number."""
    return Allowed("a number", lambda value: isinstance(value, int | float))


def switch() -> Allowed:
    """True or false."""
    return Allowed("True or False", lambda value: isinstance(value, bool))


def text() -> Allowed:
    """Any text."""
    return Allowed("text", lambda value: isinstance(value, str))


def whole_numbers(least: int) -> Allowed:
    """One or more whole numbers, none less than the least."""
    return Allowed(f"whole numbers of {least} or more", lambda values: bool(values) and _whole(values, least))


def rising(least: int) -> Allowed:
    """One or more whole numbers, each more than the one before, none less than the least."""

    def holds(values: Sequence[Any]) -> bool:
        return bool(values) and _whole(values, least) and sorted(set(values)) == list(values)

    return Allowed(f"rising whole numbers of {least} or more", holds)


def three_shares() -> Allowed:
    """Three whole numbers, not all 0."""
    return Allowed(
        "three whole numbers, not all 0", lambda values: len(values) == 3 and _whole(values, 0) and any(values)
    )


def _whole(numbers: Sequence[Any], least: int) -> bool:
    return all(isinstance(number, int) and number >= least for number in numbers)
