"""Image-text matching by multi-head consensus-aware visual-semantic embedding (MH-CVSE), in JAX and Flax."""

__version__ = "0.1.0"
