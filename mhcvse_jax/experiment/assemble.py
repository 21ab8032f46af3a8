"""A configuration made into parts that work together, and what is done with them: training and testing."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.config import Config
from mhcvse_jax.data import batches, dataset, word_vectors
from mhcvse_jax.data.dataset import Language, Split
from mhcvse_jax.devices import distributed
from mhcvse_jax.devices.compilation import Compilations
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment import parts
from mhcvse_jax.layers.concept_gcn import ConceptGraph, concept_graph
from mhcvse_jax.models import Model
from mhcvse_jax.models.pair_scores import PairModel
from mhcvse_jax.retrieval import label_completion
from mhcvse_jax.retrieval.encode import EncodedSplit, Encoder
from mhcvse_jax.retrieval.pairs import PairBlocks, PairScorer
from mhcvse_jax.training import loop
from mhcvse_jax.training.checkpoint import Checkpoints, Progress, SavedCheckpoints
from mhcvse_jax.training.feed import make_feed
from mhcvse_jax.training.metrics_log import MetricsLog, NoLog
from mhcvse_jax.training.step import initialize


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What training and evaluation share."""

    config: Config
    workdir: pathlib.Path
    mesh: Mesh
    language: Language
    model: Model
    graph: ConceptGraph
    encode: Encoder | PairScorer  # a split made into what is ranked

    @classmethod
    def assemble(
        cls, config: Config, workdir: pathlib.Path, language: Language, devices: Sequence[Any] | None = None
    ) -> "Experiment":
        """Returns the parts for a configuration, on the given devices or all.

        Raises:
          InputError: the devices do not divide a batch.
        """
        mesh = parts.check_devices(config, devices, keys=parts.encoded_at_once(config))
        model = models.build(config.model, vocabulary_size=len(language.vocabulary), dtype=config.compute_dtype)
        edges = dataset.graph_edges(language.concepts, config.concepts)
        graph = concept_graph(language.concept_vectors, edges.senders, edges.receivers, edges.weights)
        values = config.eval
        reading = {
            "caption_lengths": config.data.caption_lengths,
            "threads": config.data.read_threads,
            "prefetch": config.data.prefetch_batches,
            "precision": parts.precision(config),
        }
        if isinstance(model, PairModel):
            sizes = PairBlocks(values.pair_images, values.pair_captions, values.pair_resident_images)
            encode = PairScorer(model, graph, mesh, blocks=sizes, **reading)
        else:
            encode = Encoder(model, graph, mesh, batch_size=values.batch_size, **reading)
        return cls(config, workdir, mesh, language, model, graph, encode)

    def check_batch_size(self, train_split: Split) -> None:
        """Raises InputError where a batch is larger than the data."""
        size, captions = self.config.batch_size, train_split.num_captions
        if size > captions:
            raise InputError(f"config.batch_size is {size}; expected at most the {captions} captions of train")

    @classmethod
    def of_workdir(
        cls, workdir: pathlib.Path, *, protocol: str | None = None, data_format: str | None = None
    ) -> "Experiment":
        """Returns the parts that a run's workdir describes; what is given stands for its configuration's.

        Raises:
          InputError: a file of the workdir is missing or damaged.
        """
        config = config_lib.load(workdir / "config.json").unlock()
        config.eval.protocol = protocol or config.eval.protocol
        config.data.format = data_format or config.data.format
        config_lib.check(config)
        return cls.assemble(config.lock(), workdir, Language.load(workdir, config.text))

    def initial_word_vectors(self) -> word_vectors.WordVectors | None:
        """Returns the vectors that the user brought, and prints how many words they cover; None for random ones.

        Raises:
          InputError: the file cannot be read, or has vectors of another width.
        """
        path, words = self.config.text.word_vectors_path, self.language.vocabulary.words
        if not path:
            return None
        vectors = word_vectors.read_word_vectors(path, words, self.config.model.word_dim)
        covered = f"{vectors.found.sum():,} of {len(words):,} tokens ({100 * vectors.found.mean():.1f}%)"
        print(f"words     {path} has {covered}")
        return vectors

    def initial_variables(self, regions_shape: tuple[int, ...]) -> Any:
        """Returns {params, batch_stats} of the run that the user starts from, and names it; None for random ones.

        Args:
          regions_shape: (regions, features) that they are to fit.

        Raises:
          InputError: it has no sound checkpoint, is another model, or has features of another width.
        """
        if not self.config.start_from:
            return None
        start = pathlib.Path(self.config.start_from)
        variables, progress = dataclasses.replace(self, workdir=start).restore_best(regions_shape)
        print(f"starting  from {start}, {progress.best()}")
        return variables

    def train(
        self,
        train_split: Split,
        dev_split: Split,
        *,
        initial_word_vectors: word_vectors.WordVectors | None = None,
        initial_variables: Any = None,
    ) -> Progress:
        """Returns the progress of the finished training; goes on from the workdir's latest checkpoint.

        Args:
          train_split: what is learnt.
          dev_split: what every epoch is validated on.
          initial_word_vectors: those to begin with, a row a word of the vocabulary; None for random ones.
          initial_variables: {params, batch_stats} to begin with, which the first step takes over; None for random ones.
        """
        config, compilations = self.config, Compilations()
        jax.config.update("jax_default_matmul_precision", parts.precision(config))
        steps = batches.steps_per_epoch(train_split, config.batch_size)
        schedule, optimizer = parts.schedule_and_optimizer(config, steps)
        state = initialize(
            self.model,
            optimizer,
            self.graph,
            regions_shape=train_split.regions.shape[1:],
            seed=config.seed,
            mesh=self.mesh,
            word_vectors=initial_word_vectors,
        )
        if initial_variables is not None:
            state = state.replace(**initial_variables)
        parameters = sum(x.size for x in jax.tree.leaves(state.params))
        dim = config.model.embedding_dim
        print(f"model     {config.model.name}, D {dim}, {parts.choices(config)}: {parameters:,} parameters")
        print(
            f"training  {config.num_epochs} epochs of {steps:,} steps of {config.batch_size} pairs; "
            f"{config.loss.weighting} weights, {config.loss.reduction} over the batch; seed {config.seed}",
            flush=True,
        )
        settings = parts.loss_settings(config, steps)
        checkpoints = Checkpoints(
            self.workdir / "checkpoints",
            keep_best=config.checkpoint.keep_best,
            keep_latest=config.checkpoint.keep_latest,
        )
        progress = Progress()
        latest = checkpoints.newest_step()
        if latest is not None:
            state, progress = checkpoints.restore(state, latest, self.mesh)
            if loop.is_over(config, progress):
                checkpoints.close()
                return progress
            if not 0 <= latest - progress.epochs_done * steps < steps:
                raise InputError(
                    f"{self.workdir} is at step {latest} after {progress.epochs_done} epochs, but an epoch of these "
                    f"data has {steps} steps; expected the data that it began with, or another --workdir"
                )
            print(f"resuming  at step {latest:,}, epoch {progress.epochs_done + 1}", flush=True)
        feed = make_feed(
            config,
            train_split,
            state,
            self.mesh,
            model=self.model,
            optimizer=optimizer,
            schedule=schedule,
            graph=self.graph,
            settings=settings,
        )
        log = MetricsLog(self.workdir, resume_step=latest or 0) if distributed.is_first() else NoLog()
        try:
            return loop.train(
                config,
                state,
                progress,
                feed=feed,
                encode=self.encode,
                train_split=train_split,
                dev_split=dev_split,
                mesh=self.mesh,
                checkpoints=checkpoints,
                log=log,
                compilations=compilations,
            )
        finally:
            log.close()
            checkpoints.close()
            compilations.close()

    def load_split(self, directory: pathlib.Path, name: str, folds: Sequence[int]) -> Split:
        """Returns a split of a directory, encoded with this experiment's vocabulary and concepts.

        Raises:
          InputError: a file is missing or damaged, the pictures cannot be divided into that many folds, or one of these
        has no captions.
        """
        split = dataset.load_split(directory, name, self.language, self.config.data)
        split = dataset.first_captions(split, self.config.eval.max_captions)
        for number in folds:
            if split.num_images % number:
                raise InputError(f"{number} folds do not divide the {split.num_images} pictures of {name}")
            collections.deque(protocols.fold_parts(split.image_of_caption, split.num_images, number), 0)
        return split

    def encode_with_best(self, split: Split) -> protocols.Found:
        """Returns what `encode_for_protocol` does, by the workdir's best checkpoint.

        Raises:
          InputError: the workdir has none, or one of another model or of features of another width.
        """
        return self.encode_for_protocol(self.restore_best(split.regions.shape[1:])[0], split)

    def encode_for_protocol(self, variables: Any, split: Split) -> protocols.Found:
        """Returns the embeddings of a split, or the scores of its pairs, that the configuration's protocol ranks.

        Under `label_completion` captions are encoded a second time, with labels completed over the whole split, as
        CVSE's program does it; folds are ranked each by itself after that.

        Args:
          variables: {params, batch_stats}.
          split: what is encoded.
        """
        encoded, values = self.encode(variables, split), self.config.eval
        if values.protocol == "standard" or not isinstance(self.encode, Encoder):
            return encoded
        assert isinstance(encoded, EncodedSplit)
        neighbours = label_completion.neighbours(encoded.image.fused, encoded.text.fused, rule=values.label_neighbours)
        labels = label_completion.completed_labels(split.caption_labels, neighbours)
        return encoded._replace(text=self.encode.texts(variables, split, labels))

    def restore_best(self, regions_shape: tuple[int, ...] | None = None) -> tuple[Any, Progress]:
        """Returns {params, batch_stats} of the workdir's best checkpoint, and the progress at it.

        Where the best is lost, the newest stands for it, its own dev rsum not known.

        Args:
          regions_shape: (regions, features) that they are to fit; None for what they were trained on.

        Raises:
          InputError: the workdir has none, or one of another model or of features of another width.
        """
        checkpoints = SavedCheckpoints(self.workdir / "checkpoints")
        best = checkpoints.step_to_test()
        if regions_shape is None:
            regions_shape = parts.trained_regions(checkpoints.model_shapes(best))
        like = parts.model_shapes(self.model, self.graph, regions_shape)
        progress = checkpoints.restore_progress(best)
        if progress.best_step != best:  # the best is lost
            progress = dataclasses.replace(progress, best_step=best, best_rsum=-1.0)
        return checkpoints.restore_model(like, best, self.mesh), progress

    def test(self, encoded: protocols.Found, split: Split, folds: Sequence[int]) -> Evaluation:
        """Returns the ranks of a split that was encoded for the configuration's protocol, for each number of folds."""
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
        )
