"""The kind of device that a function is traced for: the default one, unless it is lowered for another."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_LOWERED_FOR: contextvars.ContextVar[str | None] = contextvars.ContextVar("lowered_for", default=None)


def platform() -> str:
    """Returns "cpu" or "gpu", by which a layer chooses how to compute."""
    return _LOWERED_FOR.get() or jax.default_backend()


@contextlib.contextmanager
def lowered_for(platform: str) -> Iterator[None]:
    """Lets layers choose as they do on that platform, for example to lower a step for GPUs on a machine without any.

    This alone does not run anything elsewhere: also tell `jax.export` or `lower(lowering_platforms=("cuda",))`. JAX
    caches what it has traced, so make the jitted function within this context, and do not call it.

    Args:
      platform: as `jax.default_backend()` names it.
    """
    token = _LOWERED_FOR.set(platform)
    try:
        yield
    finally:
        _LOWERED_FOR.reset(token)
