"""Ctrl-C and SIGTERM as a request that the loop answers at its next step."""

import signal
import sys
from types import FrameType


class Interrupted(Exception):  # noqa: N818 (a request, not an error)
    """The run was asked to stop and has saved itself."""


class InterruptRequest:
    """Context in which the first SIGINT or SIGTERM sets `requested`; a second one ends the program at once."""

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self) -> "InterruptRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping after this step; once more to stop without saving", file=sys.stderr, flush=True)
