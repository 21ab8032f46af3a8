"""A configuration made into parts that work together: model, concept graph, devices, encoder."""

import dataclasses
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mhcvse_jax import models
from mhcvse_jax.data import dataset
from mhcvse_jax.data.dataset import Language, Split
from mhcvse_jax.errors import InputError
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.mesh import make_mesh
from mhcvse_jax.retrieval import protocols
from mhcvse_jax.retrieval.encode import EncodedSplit, Encoder
from mhcvse_jax.training.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What training and evaluation share."""

    config: ConfigDict
    workdir: pathlib.Path
    mesh: Mesh
    language: Language
    model: nn.Module
    graph: jraph.GraphsTuple
    encode: Encoder

    @classmethod
    def assemble(
        cls, config: ConfigDict, workdir: pathlib.Path, language: Language, devices: list[jax.Device] | None = None
    ) -> "Experiment":
        """Returns the parts for a configuration, on the given devices or all.

        Raises:
          InputError: the devices do not divide a batch.
        """
        if config.matmul_precision != "default":
            jax.config.update("jax_default_matmul_precision", config.matmul_precision)
        mesh = make_mesh(devices)
        for key in ("batch_size", "eval.batch_size"):
            size = config.batch_size if key == "batch_size" else config.eval.batch_size
            if size % mesh.size:
                raise InputError(f"config.{key} is {size}, which the {mesh.size} devices do not divide")
        model = models.build(
            config.model, vocabulary_size=len(language.vocabulary), dtype=config.compute_dtype
        )
        edges = dataset.graph_edges(language.concepts, config.concepts)
        graph = concept_graph(language.concept_vectors, edges.senders, edges.receivers, edges.weights)
        encode = Encoder(
            model,
            graph,
            mesh,
            batch_size=config.eval.batch_size,
            caption_lengths=config.data.caption_lengths,
            threads=config.data.read_threads,
            prefetch=config.data.prefetch_batches,
        )
        return cls(config, workdir, mesh, language, model, graph, encode)

    def variables_like(self, split: Split) -> Any:
        """Returns the shapes of {params, batch_stats}, for a restore; allocates nothing."""
        variables = jax.eval_shape(
            lambda *arrays: self.model.init(jax.random.key(0), *arrays, self.graph, train=False),
            jnp.zeros((1, *split.regions.shape[1:])),
            jnp.zeros((1, 2), jnp.int32),
            jnp.ones((1,), jnp.int32),
            jnp.zeros((1, len(self.language.concepts.words)), bool),
        )
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    def best_variables(self, split: Split) -> Any:
        """Returns {params, batch_stats} of the workdir's best checkpoint.

        Raises:
          InputError: the workdir has none, or one of another model.
        """
        checkpoints = open_checkpoints(self.config, self.workdir)
        try:
            latest = checkpoints.latest_step()
            best = -1 if latest is None else checkpoints.restore_progress(latest).best_step
            if best < 0:
                raise InputError(f"{self.workdir}: no epoch has been validated yet; expected a best checkpoint")
            return checkpoints.restore_model(self.variables_like(split), best, self.mesh)
        finally:
            checkpoints.close()

    def test(
        self, encoded: EncodedSplit, split: Split, *, folds: int
    ) -> list[dict[str, Any]]:
        """Returns the rows of `results.json` for an encoded split."""
        results = protocols.standard(
            encoded, split.image_of_caption, consensus_weight=self.config.eval.consensus_weight, folds=folds
        )
        return protocols.result_rows(
            results,
            split=split.name,
            protocol=self.config.eval.protocol,
            folds=folds,
            num_images=split.num_images,
            num_captions=split.num_captions,
        )


def open_checkpoints(config: ConfigDict, workdir: pathlib.Path) -> Checkpoints:
    """Returns the checkpoints of a workdir."""
    return Checkpoints(
        workdir / "checkpoints",
        keep_best=config.checkpoint.keep_best,
        keep_latest=config.checkpoint.keep_latest,
    )
