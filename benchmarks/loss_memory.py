"""The memory that the losses take on a device, whole and in blocks, as the compiler counts it; nothing is computed.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m benchmarks.loss_memory --batch 8192 32768

Compiles the four losses with their gradients for the embeddings, for all devices that JAX sees, and prints what a
device holds meanwhile beside arguments and results.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.workload import Sizes
from mhcvse_jax.devices.mesh import by_batch, make_mesh
from mhcvse_jax.losses import Contrast, loss_terms
from mhcvse_jax.models.embeddings import Embeddings


def temporary_bytes(batch: int, dim: int, concepts: int, block: int) -> int:
    """Returns the bytes that a device holds between arguments and results, forward and backward.

    Args:
      batch: pairs over all devices.
      dim: of an embedding.
      concepts: of a distribution.
      block: `config.loss.similarity_block`; 0: the similarity is held whole.
    """

    def total(image: Embeddings, text: Embeddings, image_index: jax.Array) -> jax.Array:
        options = {"mask_same_image": True, "reduction": "sum"}
        losses, _ = loss_terms(image, text, image_index, Contrast(), **options, similarity_block=block)
        return jnp.sum(jnp.stack(jax.tree.leaves(losses)))

    embedding: Any = jax.ShapeDtypeStruct((batch, dim), jnp.float32)
    distribution: Any = jax.ShapeDtypeStruct((batch, concepts), jnp.float32)
    side = Embeddings(embedding, embedding, embedding, distribution)
    split = by_batch(make_mesh())
    function = jax.jit(jax.value_and_grad(total, argnums=(0, 1)), in_shardings=split)
    compiled = function.lower(side, side, jax.ShapeDtypeStruct((batch,), jnp.int32)).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loss_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[8_192, 32_768], help="pairs over all devices")
    parser.add_argument("--block", type=int, default=1_024, help="of config.loss.similarity_block (default 1,024)")
    parser.add_argument("--dim", type=int, default=Sizes().embedding_dim, help="(default %(default)s)")
    arguments = parser.parse_args(argv)
    print(f"{len(jax.devices())} x {jax.devices()[0].device_kind}, D {arguments.dim}, blocks of {arguments.block:,}")
    for batch in arguments.batch:
        whole, blocks = (
            temporary_bytes(batch, arguments.dim, Sizes().concepts, block) / 2**20 for block in (0, arguments.block)
        )
        print(f"batch {batch:>8,}: whole {whole:>9,.0f} MiB a device, in blocks {blocks:>7,.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
