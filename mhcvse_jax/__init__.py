"""Image-text matching by multi-head consensus-aware visual-semantic embedding (MH-CVSE), in JAX and Flax.

    import mhcvse_jax

    model = mhcvse_jax.load("runs/f30k")
    vectors = model.encode_texts(["two dogs play in the snow"])
    hits = mhcvse_jax.Index.open("index").search(["two dogs play in the snow"], k=10)

docs/search.md has the rest.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mhcvse_jax.errors import InputError
    from mhcvse_jax.indexing.index import Hit, Index
    from mhcvse_jax.indexing.store import Picture
    from mhcvse_jax.indexing.trained import TrainedModel, load

__version__ = "0.1.0"
__all__ = ["Hit", "Index", "InputError", "Picture", "TrainedModel", "load"]

_HOMES = {
    "Hit": "mhcvse_jax.indexing.index",
    "Index": "mhcvse_jax.indexing.index",
    "InputError": "mhcvse_jax.errors",
    "Picture": "mhcvse_jax.indexing.store",
    "TrainedModel": "mhcvse_jax.indexing.trained",
    "load": "mhcvse_jax.indexing.trained",
}


def __getattr__(name: str) -> Any:
    """Returns a public name from its module, imported only now: a command that needs no JAX does not wait for it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
