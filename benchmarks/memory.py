"""What a training step holds of a device's memory at most, by configuration, as the compiler counts it.

    python -m benchmarks.memory f30k coco --output benchmarks/results/cpu_memory.json

Compiles the step of each configuration at its data's sizes, with the GRU that a GPU takes, and allocates nothing of
it. A step holds its state (parameters and Adam's two moments), the batch, and what lies between the forward and the
backward pass. Where features lie on the device, they are added: all of the training split.

This is XLA's assignment of buffers for the CPU, which stands in for the GPU's. The GPU's differs: it fuses more, which
holds less; it rounds sizes up, keeps workspaces of cuBLAS and cuDNN, some hundred MB, and CUDA's own context, some 500
MB, which are not counted here.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.config import Config
from mhcvse_jax.data.batches import Batch
from mhcvse_jax.data.text import EncodedCaptions
from mhcvse_jax.devices.mesh import by_batch, make_mesh, replicated
from mhcvse_jax.devices.platform import lowered_for
from mhcvse_jax.experiment import parts, training_parts
from mhcvse_jax.layers.captions import Captions
from mhcvse_jax.layers.concept_gcn import ConceptGraph, concept_graph
from mhcvse_jax.run import command_line
from mhcvse_jax.training.resident import ResidentSplit
from mhcvse_jax.training.step import StepParts, TrainState, initialize, make_train_step


class Data(NamedTuple):
    """The sizes of a training split."""

    images: int
    regions: int
    features: int
    vocabulary: int
    edges: int = 1328  # of the concept graph


FLICKR30K = Data(29_000, 36, 2048, 8_481)
COCO = Data(113_287, 36, 2048, 11_755)
FLICKR8K = Data(6_000, 36, 1280, 4_000)
SCENES = Data(3_000, 12, 256, 120, 200)
CAPTIONS_PER_IMAGE = 5
WORDS_A_CAPTION = 12
STEPS_PER_EPOCH = 1_000  # the rate alone depends on it
FITS = (8, 24, 80)  # GB of a device
USABLE = 0.9  # of these: the rest is CUDA's, cuBLAS's and cuDNN's


def data_of(name: str) -> Data:
    """Returns the sizes of the data that a configuration of this name is for."""
    if "demo" in name:
        return SCENES
    if "coco" in name:
        return COCO
    return FLICKR8K if name in ("f8k", "pictures") else FLICKR30K


def make_parts(config: Config, data: Data, mesh: jax.sharding.Mesh) -> StepParts:
    """Returns what the step of a configuration is made of, with a graph of its size."""
    model = models.build(
        config.model,
        vocabulary_size=data.vocabulary,
        dtype=config.compute_dtype,
        similarity_scale=parts.similarity_scale(config),
    )
    return training_parts.step_parts(config, model, _graph(config, data), mesh, STEPS_PER_EPOCH)


def _graph(config: Config, data: Data) -> ConceptGraph:
    num = config.concepts.num
    places = np.arange(max(data.edges, num), dtype=np.int32) % num
    return concept_graph(
        np.ones((num, config.concepts.vector_dim), np.float32),
        places,
        np.flip(places),
        np.ones(len(places), np.float32),
    )


def state_shapes(parts: StepParts, data: Data) -> TrainState:
    """Returns the state of a step, as shapes on the devices."""
    shapes = jax.eval_shape(lambda: initialize(parts, regions_shape=(data.regions, data.features), seed=0))
    everywhere = replicated(parts.mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)


def batch_shapes(config: Config, data: Data, mesh: jax.sharding.Mesh, words: int) -> Batch:
    """Returns a batch from the host, as shapes split over the devices; captions of `words` tokens."""

    def array(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((config.batch_size, *shape), dtype, sharding=by_batch(mesh))

    captions = Captions(array(jnp.int32, words), array(jnp.int32), array(jnp.bool_, config.concepts.num))
    return Batch(array(jnp.float32, data.regions, data.features), captions, array(jnp.int32))


def split_shapes(config: Config, data: Data, mesh: jax.sharding.Mesh, *, sharded: bool = False) -> ResidentSplit:
    """Returns a training split on the devices, as shapes."""

    def array(dtype: Any, *shape: int, sharding: Any = None) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding or replicated(mesh))

    captions = CAPTIONS_PER_IMAGE * data.images
    regions = array(
        jnp.dtype(config.compute_dtype),
        data.images,
        data.regions,
        data.features,
        sharding=by_batch(mesh) if sharded else None,
    )
    tokens = EncodedCaptions(
        array(jnp.int32, WORDS_A_CAPTION * captions), array(jnp.int32, captions), array(jnp.int32, captions)
    )
    labels = array(jnp.bool_, captions, config.concepts.num)
    return ResidentSplit(regions, None, tokens, labels, array(jnp.int32, captions))


class Peak(NamedTuple):
    """Bytes of a device."""

    state: int
    batch: int  # of features and captions, from the host
    between: int  # what the step makes and lets go
    resident: int  # the training split, where it lies on the device

    @property
    def features_on_host(self) -> int:
        """At most, with features on the host."""
        return self.state + self.batch + self.between

    @property
    def features_on_device(self) -> int:
        """At most, with features on the device; the batch is gathered there."""
        return self.features_on_host + self.resident


def peak(config: Config, data: Data) -> Peak:
    """Returns what a step of the longest captions holds on one device."""
    mesh = make_mesh(jax.devices()[:1])
    with lowered_for("gpu"):
        step_parts = make_parts(config, data, mesh)
        state, batch = state_shapes(step_parts, data), batch_shapes(config, data, mesh, _words(config))
        step: Any = make_train_step(step_parts)
        with jax.default_matmul_precision(parts.precision(config)):
            compiled = step.lower(state, batch).compile()
    found = compiled.memory_analysis()
    assert found is not None
    made = found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return Peak(_bytes(state), _bytes(batch), made, _bytes(split_shapes(config, data, mesh)))


def _words(config: Config) -> int:
    """Returns the tokens that the longest captions are padded to, but for those few that are longer than 64."""
    return max((length for length in config.data.caption_lengths if length <= 64), default=64)


def _bytes(tree: Any) -> int:
    return sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, np.generic)
    )


def fits(num_bytes: int) -> str:
    """Returns the smallest device that holds this, "8 GB" for example."""
    return next((f"{size} GB" for size in FITS if num_bytes <= USABLE * size * 1e9), "none")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = timing.parser((__doc__ or "").splitlines()[0], rounds=1)
    parser.add_argument("configs", nargs="*", default=sorted(config_lib.named()), help="names or files")
    options = parser.parse_args(arguments)
    columns = f"{'state':>8}{'batch':>8}{'between':>9}{'host':>8}{'features':>10}{'device':>8}"
    print(f"{'configuration':<24}{columns}  fits, features on the host / on the device; GB")
    rows = []
    for name in options.configs:
        config = config_lib.read(name)
        found = peak(config, data_of(pathlib.Path(name).stem))
        host, device = found.features_on_host, found.features_on_device
        values = (found.state, found.batch, found.between, host, found.resident, device)
        widths = (8, 8, 9, 8, 10, 8)
        shown = "".join(f"{value / 1e9:>{width}.2f}" for value, width in zip(values, widths, strict=True))
        print(f"{name:<24}{shown}  {fits(host)} / {fits(device)}", flush=True)
        rows.append(
            timing.row(
                f"memory of a device, {name}, {config.compute_dtype}: features there, against on the host",
                ours=device / 1e9,
                theirs=host / 1e9,
                ratio=host / device,
                unit="GB",
                spread="as XLA's CPU assignment counts",
            )
        )
    timing.save(options.output, rows)


if __name__ == "__main__":
    sys.exit(command_line.run(main))
