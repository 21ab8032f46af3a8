"""Compiled programs: kept from one run to the next, and counted."""

import hashlib
import os
import pathlib
import platform

import jax
from jax import monitoring

COMPILED = "/jax/core/compile/backend_compile_duration"
FOUND = "/jax/compilation_cache/cache_hits"


def keep_compiled() -> None:
    """Lets JAX keep compiled programs in the user's cache directory, so that a second start compiles almost nothing.

    JAX_COMPILATION_CACHE_DIR overrides this; set it empty to disable caching. If the cache directory cannot be
    written, nothing is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    directory = root / "mhcvse_jax" / f"compiled-{_processor()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(directory, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(directory))


def _processor() -> str:
    """Returns a name for this kind of processor: machines that share a home directory do not share code for it."""
    facts = platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts += next((line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


class Compilations:
    """While open, counts the programs that were compiled and those found in the cache."""

    def __init__(self):
        """Begins to count."""
        self.number, self.found, self.seconds = 0, 0, 0.0
        monitoring.register_event_duration_secs_listener(self._compiled)
        monitoring.register_event_listener(self._found)

    def close(self) -> None:
        """Ends the counting."""
        monitoring.unregister_event_duration_listener(self._compiled)
        monitoring.unregister_event_listener(self._found)

    def describe_new(self) -> str | None:
        """Returns how many programs were compiled since the last call, and how long that took; None for none."""
        number, found, seconds = self.number, self.found, self.seconds
        self.number, self.found, self.seconds = 0, 0, 0.0
        if not number:
            return None
        return f"compiled  {number - found} programs, {found} more were in the cache; {seconds:.1f} s"

    def _compiled(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILED:
            self.number += 1
            self.seconds += duration_secs

    def _found(self, event: str, **kwargs: str | int) -> None:
        self.found += event == FOUND
