"""The parts that a configuration describes, assembled, and how they are tested."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.config import Config
from mhcvse_jax.data import dataset, region_shape
from mhcvse_jax.data.dataset import Language, Split
from mhcvse_jax.evaluation import protocols
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment import parts, reading
from mhcvse_jax.layers.concept_gcn import ConceptGraph, concept_graph
from mhcvse_jax.models import Model
from mhcvse_jax.models.pair_scores import PairModel
from mhcvse_jax.retrieval.encode import Encoder
from mhcvse_jax.retrieval.folds import fold_parts
from mhcvse_jax.retrieval.pairs import PairBlocks, PairScorer
from mhcvse_jax.training.checkpoint import Progress, SavedCheckpoints


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What training and evaluation share."""

    config: Config
    workdir: pathlib.Path
    mesh: Mesh
    language: Language
    model: Model
    graph: ConceptGraph
    encoder: Encoder | PairScorer  # makes a split into what is ranked

    @classmethod
    def assemble(
        cls, config: Config, workdir: pathlib.Path, language: Language, devices: Sequence[Any] | None = None
    ) -> "Experiment":
        """Returns the parts for a configuration, on the given devices or all.

        Raises:
          InputError: the devices do not divide a batch.
        """
        mesh = parts.check_devices(config, devices, keys=parts.encoded_at_once(config))
        model = models.build(
            config.model,
            vocabulary_size=len(language.vocabulary),
            dtype=config.compute_dtype,
            similarity_scale=parts.similarity_scale(config),
        )
        edges = reading.graph_edges(language.concepts, config.concepts)
        graph = concept_graph(language.concept_vectors, edges.senders, edges.receivers, edges.weights)
        values = config.eval
        options = {
            "caption_lengths": config.data.caption_lengths,
            "threads": config.data.read_threads,
            "prefetch": config.data.prefetch_batches,
            "precision": parts.precision(config),
        }
        if isinstance(model, PairModel):
            sizes = PairBlocks(values.pair_images, values.pair_captions, values.pair_resident_images)
            encoder = PairScorer(model, graph, mesh, blocks=sizes, **options)
        else:
            encoder = Encoder(model, graph, mesh, batch_size=values.batch_size, **options)
        return cls(config, workdir, mesh, language, model, graph, encoder)

    @classmethod
    def of_workdir(
        cls, workdir: pathlib.Path, *, protocol: str | None = None, data_format: str | None = None
    ) -> "Experiment":
        """Returns the parts that a workdir describes; arguments override its configuration.

        Raises:
          InputError: a file of the workdir is missing or damaged.
        """
        config = config_lib.load(workdir / "config.json").unlock()
        config.eval.protocol = protocol or config.eval.protocol
        config.data.format = data_format or config.data.format
        config_lib.check(config)
        return cls.assemble(config.lock(), workdir, reading.load_language(workdir, config))

    def load_split(self, directory: pathlib.Path, name: str, folds: Sequence[int]) -> Split:
        """Returns a split of a directory, encoded with this experiment's vocabulary and concepts.

        Raises:
          InputError: a file is missing or damaged, the pictures cannot be divided into that many folds, or one of these
        has no captions.
        """
        split = reading.load_split(directory, name, self.language, self.config.data)
        split = dataset.first_captions(split, self.config.eval.max_captions)
        for number in folds:
            list(fold_parts(split.image_of_caption, split.num_images, number, name))
        return split

    def encode_with_best(self, split: Split) -> protocols.Found:
        """Returns what `encode_for_protocol` does, by the workdir's best checkpoint.

        Raises:
          InputError: the workdir has no checkpoint, or one of another model or of features of another width.
        """
        return self.encode_for_protocol(self.restore_best(split.regions.shape[1:])[0], split)

    def encode_for_protocol(self, variables: Any, split: Split) -> protocols.Found:
        """Returns the embeddings of a split, or the scores of its pairs, that the configuration's protocol ranks.

        Under `label_completion` captions are encoded a second time, with labels completed over the whole split, as
        CVSE's program does it; folds are ranked each by itself after that.

        Args:
          variables: {params, batch_stats}.
          split: the split to encode.
        """
        values = self.config.eval
        if values.protocol != "label_completion":
            return self.encoder(variables, split)
        return self.encoder.with_completed_labels(variables, split, rule=values.label_neighbours)

    def restore_best(self, regions_shape: tuple[int, ...] | None = None, *, check: bool = True) -> tuple[Any, Progress]:
        """Returns {params, batch_stats} of the workdir's best checkpoint, and the progress at it.

        If the best checkpoint is missing or damaged, the newest replaces it; its dev rsum is not known.

        Args:
          regions_shape: (regions, features) that they are to fit; None for what they were trained on.
          check: whether the parameters are compared with the model's, which takes a trace of it.

        Raises:
          InputError: the workdir has no checkpoint, or one of another model or of features of another width.
        """
        checkpoints = SavedCheckpoints(self.workdir / "checkpoints")
        best = checkpoints.step_to_test()
        like = None
        if check:
            if regions_shape is None:
                stated = region_shape.read(self.workdir)
                regions_shape = stated or parts.trained_regions(checkpoints.model_shapes(best))
            like = parts.model_shapes(self.model, self.graph, regions_shape)
        progress = checkpoints.restore_progress(best)
        if progress.best_step != best:  # the best checkpoint is missing or damaged
            progress = dataclasses.replace(progress, best_step=best, best_rsum=-1.0)
        return checkpoints.restore_model(like, best, self.mesh), progress

    def against_hubs(self, variables: Any, read_train: Callable[[], Split]) -> protocols.AgainstHubs | None:
        """Returns what the configuration's protocol needs to reduce hubs; None if it does not reduce them.

        Args:
          variables: {params, batch_stats}, of which the bank is encoded.
          read_train: gives the training split, of which the bank is made; called for `qb_norm` alone.
        """
        values = self.config.eval
        if values.protocol not in protocols.AGAINST_HUBS:
            return None
        bank = None
        if values.protocol == "qb_norm":
            assert isinstance(self.encoder, Encoder), "the rules of the configuration see to it"
            bank = self.encoder(variables, dataset.some_captions(read_train(), values.bank_captions))
        return protocols.AgainstHubs(values.protocol, values.hubness_temperature, values.csls_neighbours, bank)

    def test(
        self,
        encoded: protocols.Found,
        split: Split,
        folds: Sequence[int],
        against: protocols.AgainstHubs | None = None,
    ) -> Evaluation:
        """Returns the ranks of a split that was encoded for the configuration's protocol, for each number of folds.

        Args:
          encoded: what `encode_for_protocol` returns.
          split: the split that was encoded.
          folds: numbers of folds.
          against: what `against_hubs` returns.
        """
        values = self.config.eval
        ranks = {}
        for number in folds:
            ranks[number] = {
                kind: protocols.split_ranks(
                    encoded,
                    split.image_of_caption,
                    kind=kind,
                    consensus_weight=values.consensus_weight,
                    folds=number,
                    against=against,
                )
                for kind in protocols.kinds(encoded)
            }
        return Evaluation(
            split=split.name,
            protocol=values.protocol,
            label_neighbours=values.label_neighbours if values.protocol == "label_completion" else "",
            image_ids=split.image_ids,
            image_of_caption=split.image_of_caption,
            ranks=ranks,
            setting=str(against or ""),
        )
