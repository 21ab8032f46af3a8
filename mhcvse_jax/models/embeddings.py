"""What an embedding model says of pictures and captions: the interface to losses and retrieval."""

from typing import NamedTuple

import jax


class Embeddings(NamedTuple):
    """What a model says of a batch of pictures or captions."""

    instance: jax.Array  # <float32>[batch, D] unit vectors, from the picture or caption alone
    consensus: jax.Array  # <float32>[batch, D] unit vectors, from the concepts
    fused: jax.Array  # <float32>[batch, D] unit vectors, the two in one: what retrieval uses
    concepts: jax.Array  # <float32>[batch, concepts] distribution over the concepts
