"""A run as a report sees it: what it left in its workdir, and what its best checkpoint does with a split."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.config import Config
from mhcvse_jax.data import batches, dataset, feature_source, region_boxes, region_names
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.region_boxes import RegionBoxes
from mhcvse_jax.data.region_names import RegionNames
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment import parts, reading, training_parts
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.losses import CONTRASTIVE
from mhcvse_jax.models.pair_scores import PairModel
from mhcvse_jax.reporting import attention, curves, facts, queries
from mhcvse_jax.reporting.curves import Log
from mhcvse_jax.retrieval.encode import EncodedSplit
from mhcvse_jax.retrieval.similarity import Similarity
from mhcvse_jax.training.checkpoint import Progress
from mhcvse_jax.training.watches import collapse_values

PAIR_PICTURES = 200
"""Pictures that are matched by a model that scores pairs: a thousand make 25 times as many pairs."""


class Options(NamedTuple):
    """What is looked at; None: what the run was tested on."""

    split: str | None = None
    data_dir: pathlib.Path | None = None
    num_pictures: int | None = None


class Tested(NamedTuple):
    """What the best checkpoint finds in a split."""

    experiment: Experiment
    variables: Any
    progress: Progress
    directory: pathlib.Path
    split: Split
    places: RegionBoxes
    shows: RegionNames
    encoded: protocols.Found
    similarity: Similarity
    found: queries.Found
    is_part: bool  # whether the split is but its first pictures


class Observed(NamedTuple):
    """A run; `tested` is None if it cannot be evaluated, and the last of `notes` says why."""

    name: str
    workdir: pathlib.Path
    config: Config
    log: Log
    results: Mapping[str, Any]
    tested: Tested | None
    notes: list[str]


def observe(name: str, workdir: pathlib.Path, options: Options) -> Observed:
    """Returns everything that is known about a run.

    Raises:
      InputError: the directory is no workdir, or a split or data that the options name cannot be read.
    """
    config = config_lib.load(workdir / "config.json")
    results, notes = facts.results(workdir / "results.json"), []
    tested = None
    if not results:
        notes.append("This run has not finished: the page shows its best checkpoint so far, on the dev split.")
    split = options.split or (config.eval.test_split if results else "dev")
    try:
        tested = _test(workdir, split, options)
    except InputError as error:
        if options.split or options.data_dir:
            raise
        notes.append(f"Matches, attention, hubs and concepts are left out: {error}")
    if tested and tested.is_part:
        notes.append(
            f"Matches, ranks, hubs and attention below are of the first {tested.split.num_images:,} pictures of "
            f"{split} alone; --pictures takes more."
        )
    return Observed(name, workdir, config, curves.read(workdir / "metrics.jsonl"), results, tested, notes)


def _test(workdir: pathlib.Path, name: str, options: Options) -> Tested:
    experiment = Experiment.of_workdir(workdir)
    directory = options.data_dir or reading.data_directory(experiment.config, workdir)
    feature_source.check(directory, workdir)
    whole = experiment.load_split(directory, name, (1,))
    number = options.num_pictures or (PAIR_PICTURES if isinstance(experiment.model, PairModel) else whole.num_images)
    split = dataset.first_images(whole, number) if number < whole.num_images else whole
    num_regions, _ = split.regions.shape[1:]
    places = region_boxes.read(directory, name, split.num_images, num_regions)
    shows = region_names.read(directory, name, split.num_images, num_regions)
    variables, progress = experiment.restore_best(split.regions.shape[1:])
    print(f"encoding  {split.num_images:,} pictures and {split.num_captions:,} captions of {name}", flush=True)
    encoded = experiment.encode_for_protocol(variables, split)
    similarity = protocols.similarity_of(encoded, "fused", experiment.config.eval.consensus_weight)
    found = queries.search(similarity, split.image_of_caption)
    is_part = split is not whole
    return Tested(experiment, variables, progress, directory, split, places, shows, encoded, similarity, found, is_part)


def evaluation(run: Observed) -> Evaluation | None:
    """Returns the ranks that the run's test has kept, or those of the split that is looked at; None without either."""
    path = run.workdir / "ranks.npz"
    kept = Evaluation.load(path) if run.results and path.exists() else None
    tested = run.tested
    if kept is not None and (tested is None or kept.split == tested.split.name):
        return kept
    return None if tested is None else tested.experiment.test(tested.encoded, tested.split, (1,))


def looks(tested: Tested, pairs: Sequence[tuple[int, int]]) -> list[tuple[list[str], attention.Looks]]:
    """Returns for each pair, a caption and a picture, its words as the model reads them, and where it looks."""
    captions, images = (np.array(side) for side in zip(*pairs, strict=True))
    split, experiment = tested.split, tested.experiment
    regions, num_regions = batches.read_regions(split, images)
    lengths = split.lengths[captions]
    tokens = split.tokens.padded(captions, int(lengths.max()))

    @jax.default_matmul_precision(parts.precision(experiment.config))
    def maps(variables: Any, inputs: tuple[np.ndarray, ...], num_regions: np.ndarray | None) -> Any:
        return experiment.model.apply(variables, *inputs, num_regions=num_regions, method="attention_maps")

    found = jax.device_get(jax.jit(maps)(tested.variables, (regions, tokens, lengths), num_regions))
    counts = np.full(len(pairs), regions.shape[1]) if num_regions is None else num_regions
    vocabulary = experiment.language.vocabulary.words
    return [
        (
            [vocabulary[token] for token in tokens[place, : lengths[place]]],
            attention.looks(found, place, int(counts[place]), int(lengths[place])),
        )
        for place in range(len(pairs))
    ]


class ConceptVectors(NamedTuple):
    """What a model makes of the concepts."""

    embeddings: np.ndarray  # <float32>[concepts, D], unit vectors of the graph network
    of_images: np.ndarray  # <float32>[images, concepts], the distribution of each picture


def concept_vectors(tested: Tested) -> ConceptVectors | None:
    """Returns what the model makes of the concepts; None where it has none."""
    encoded, experiment = tested.encoded, tested.experiment
    if not isinstance(encoded, EncodedSplit) or encoded.image.concepts is None:
        return None

    def embeddings(variables: Any) -> Any:
        return experiment.model.apply(variables, experiment.graph, method=lambda model, graph: model.concept_gcn(graph))

    return ConceptVectors(np.asarray(jax.jit(embeddings)(tested.variables)), np.asarray(encoded.image.concepts))


def collapse_levels(run: Observed) -> dict[str, float]:
    """Returns the value of each contrastive loss when all embeddings are alike, by its name in the log."""
    value_at, last = collapse_value_at(run.config, run.log), curves.last_step(run.log)
    return {} if value_at is None else {f"loss_{term}": value_at(term, last) for term in CONTRASTIVE}


def collapse_value_at(config: Config, log: Log) -> Callable[[str, int], float] | None:
    """Returns a function of term and step: a run's loss where all embeddings are alike.

    None while no epoch has ended: how many steps one has is not known.
    """
    steps = [int(steps[0]) for steps, _ in log.kinds.get("dev_fused", {}).values()]
    if not steps:
        return None
    mined = config.model.mined_negatives if "mined_negatives" in models.keys(config.model.name) else 0
    return collapse_values(training_parts.loss_settings(config, steps[0]), config.batch_size, mined)
