"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 as a request that the loop answers at its next step."""

import signal
import sys
from types import FrameType

from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.hangup import leave_terminal


class InterruptRequest:
    """Context in which SIGINT, SIGTERM, SIGHUP and SIGUSR1 set `requested`.

    A second SIGINT or SIGTERM ends the program at once. SIGUSR1 is a scheduler's warning, which a SIGTERM may follow.
    SIGHUP means that the terminal has closed; under nohup it is ignored.
    """

    def __init__(self):
        self.requested = False
        self._told = False  # by a signal that, repeated, means at once
        self._previous = {}

    def __enter__(self) -> "InterruptRequest":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        elif number != signal.SIGUSR1:
            if self._told:
                raise KeyboardInterrupt
            self._told = True
        self.requested = True
        if distributed.claim("stopping"):
            print("\nstopping after the current steps; repeat to stop without saving", file=sys.stderr, flush=True)
