"""The training step that is measured: sizes, model, state, batches."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.synthetic import VOCABULARY_SIZE, make_batch
from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.data.batches import Batch
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.regions import MappedRegions
from mhcvse_jax.data.text import EncodedCaptions
from mhcvse_jax.devices.mesh import by_batch, make_mesh, replicated
from mhcvse_jax.experiment import training_parts
from mhcvse_jax.layers.concept_gcn import ConceptGraph, concept_graph
from mhcvse_jax.training import resident
from mhcvse_jax.training.step import TrainState, initialize, make_resident_steps, make_train_step

STEPS_PER_EPOCH = 1132  # of Flickr30k in batches of 128; only the rate depends on it


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a step; `config.base()` has the meaning of each."""

    batch: int = 128
    regions: int = 36
    features: int = 2048
    embedding_dim: int = 1024
    word_dim: int = 300
    num_heads: int = 8
    concepts: int = 300
    concept_dim: int = 300
    edges: int = 1328  # non-zeros of the propagation matrix; what CVSE's published counts give
    vocabulary: int = VOCABULARY_SIZE


SIZES = {
    "full": Sizes(),
    "small": Sizes(batch=64, regions=12, features=256, embedding_dim=256, word_dim=64, concepts=60, edges=200),
    "tiny": Sizes(8, 3, 10, 16, 6, 2, concepts=20, concept_dim=5, edges=30, vocabulary=50),
}


def make_config(sizes: Sizes, **model: Any) -> config_lib.Config:
    """Returns the paper's configuration at these sizes, with keys of `config.model` replaced."""
    config = config_lib.base()
    config.batch_size = sizes.batch
    config.loss.negatives = "hardest"  # the twins in PyTorch have those
    config.concepts.num, config.concepts.vector_dim = sizes.concepts, sizes.concept_dim
    config.model.update(
        {
            "embedding_dim": sizes.embedding_dim,
            "word_dim": sizes.word_dim,
            "num_heads": sizes.num_heads,
            **model,
        }
    )
    return config


def make_graph(sizes: Sizes) -> ConceptGraph:
    """Returns a random graph with each concept its own neighbour, as a propagation matrix has."""
    rng = np.random.default_rng(1)
    own = np.arange(sizes.concepts)
    others = rng.choice(sizes.concepts**2, sizes.edges - sizes.concepts, replace=False)
    senders, receivers = np.divmod(others, sizes.concepts)
    vectors = rng.standard_normal((sizes.concepts, sizes.concept_dim), dtype=np.float32)
    return concept_graph(
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        np.concatenate([own, senders]).astype(np.int32),
        np.concatenate([own, receivers]).astype(np.int32),
        np.concatenate([np.ones(sizes.concepts), np.full(len(others), 0.1)]).astype(np.float32),
    )


def make_batches(sizes: Sizes, config: config_lib.Config, num: int) -> list[Batch]:
    """Returns different batches, in host memory, with the caption lengths of Flickr30k."""
    rng = np.random.default_rng(2)
    return [
        make_batch(
            rng,
            size=sizes.batch,
            regions_shape=(sizes.regions, sizes.features),
            vocabulary_size=sizes.vocabulary,
            num_concepts=sizes.concepts,
            shapes=config.data.caption_lengths,
            remove_stop_words=config.text.remove_stop_words,
        )
        for _ in range(num)
    ]


class Trainer:
    """Our training step on the first device, with its state."""

    def __init__(self, sizes: Sizes, config: config_lib.Config):
        self.mesh = make_mesh(jax.devices()[:1])
        self.graph = make_graph(sizes)
        self.model: models.Model = models.build(
            config.model, vocabulary_size=sizes.vocabulary, dtype=config.compute_dtype
        )
        self.parts = training_parts.step_parts(config, self.model, self.graph, self.mesh, STEPS_PER_EPOCH)
        self.state: TrainState = initialize(self.parts, regions_shape=(sizes.regions, sizes.features), seed=0)
        self._step = make_train_step(self.parts)

    def place(self, batch: Batch) -> Batch:
        """Returns the batch on the device."""
        return jax.device_put(batch, by_batch(self.mesh))

    def step(self, batch: Batch) -> jax.Array:
        """Takes a step; returns its loss, which may not be computed yet."""
        self.state, metrics = self._step(self.state, batch)
        return metrics["loss"]


class ResidentTrainer(Trainer):
    """Our training steps on batches that are gathered on the first device, all in one dispatch."""

    def __init__(self, sizes: Sizes, config: config_lib.Config, batches: Sequence[Batch]):
        super().__init__(sizes, config)
        split = as_split(batches)
        lengths = sorted({batch.captions.tokens.shape[1] for batch in batches})
        self._steps = make_resident_steps(self.parts, placement="replicated", caption_lengths=lengths)
        self._data = resident.place(
            split,
            self.mesh,
            "replicated",
            dtype=config.compute_dtype,
            training_label=config.concepts.training_label,
            threads=config.data.read_threads,
            prefetch=config.data.prefetch_batches,
        )
        captions = np.arange(split.num_captions, dtype=np.int32).reshape(len(batches), sizes.batch)
        index = np.array([lengths.index(batch.captions.tokens.shape[1]) for batch in batches], np.int32)
        self._sent = jax.device_put((captions, index, np.int32(len(batches))), replicated(self.mesh))

    def run(self) -> jax.Array:
        """Takes a step on each batch; returns their losses, which may not be computed yet."""
        self.state, metrics = self._steps(self.state, self._data, *self._sent)
        return metrics["loss"]


def as_split(batches: Sequence[Batch]) -> Split:
    """Returns a split whose captions are those of the batches, in their order, each with a picture of its own."""
    labels = np.concatenate([batch.captions.labels for batch in batches])
    features = np.concatenate([batch.regions for batch in batches])
    everything = np.arange(len(labels))
    return Split(
        name="train",
        regions=MappedRegions(features, everything),
        captions=[""] * len(labels),
        tokens=EncodedCaptions.of_lengths(
            np.concatenate(
                [
                    row[:length]
                    for batch in batches
                    for row, length in zip(batch.captions.tokens, batch.captions.lengths, strict=True)
                ]
            ),
            np.concatenate([batch.captions.lengths for batch in batches]),
        ),
        image_of_caption=everything.astype(np.int32),
        image_labels=labels,
        caption_labels=labels,
        image_ids=[str(i) for i in everything],
        image_names=None,
    )


def set_precision(precision: str) -> str:
    """Sets the precision of float32 products; returns the layers' arithmetic for `config.compute_dtype`.

    Args:
      precision: "float32" (no TF32), "tf32" or "bfloat16" (the rest of it is TF32 there).
    """
    jax.config.update("jax_default_matmul_precision", "highest" if precision == "float32" else "tensorfloat32")
    return "bfloat16" if precision == "bfloat16" else "float32"


PRECISIONS = ("float32", "tf32", "bfloat16")
