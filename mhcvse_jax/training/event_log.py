"""The numbers of each step as TensorBoard events."""

import pathlib
import time
from collections.abc import Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]


class EventLog:
    """A file of events in its own directory."""

    def __init__(self, directory: pathlib.Path, *, resume_step: int):
        """Starts a new file, for the steps after `resume_step`."""
        directory.mkdir(exist_ok=True)
        # Not SummaryWriter: its thread takes an error of the disk with it, and the run would never know.
        self._events = EventsWriter(str(directory / "events"))
        # TensorBoard hides what an earlier start logged from this step on.
        self._events.write_event(Event(step=resume_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float], *, kind: str) -> None:
        """Writes each number as an event `kind/name`."""
        numbers = [Summary.Value(tag=f"{kind}/{name}", simple_value=value) for name, value in values.items()]
        self._events.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=numbers)))

    def flush(self) -> None:
        """Flushes what was written to the operating system."""
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._events.close()
