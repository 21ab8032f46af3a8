"""An ensemble: the mean of several systems' similarities, ranked."""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from mhcvse_jax.comparison.entry import Entry, Facts, figures_of, hits_of, recalls_of
from mhcvse_jax.comparison.likeness import differences
from mhcvse_jax.comparison.sources import Wanted, read_similarity, split_name
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols
from mhcvse_jax.experiment import reading
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.retrieval import similarity
from mhcvse_jax.retrieval.recall import mean_recall_over_folds
from mhcvse_jax.retrieval.similarity import Similarity


def evaluate(sources: Sequence[str], wanted: Wanted, data_dir: pathlib.Path | None = None) -> Entry:
    """Returns the row of an ensemble.

    Args:
      sources: workdirs, whose best checkpoints are evaluated, and similarity matrices (.npy).
      wanted: split, protocol and folds to evaluate them on.
      data_dir: the data, if it has moved since the runs.

    Raises:
      InputError: a source cannot be used, or the members have unlike splits, protocols or pictures.
    """
    if wanted.protocol in protocols.AGAINST_HUBS:
        raise InputError(
            f"--ensemble --protocol {wanted.protocol}: an ensemble is a mean of similarities, and under that protocol "
            "each direction has its own; expected standard or label_completion"
        )
    members, matrices, owners = [], [], []
    for number, source in enumerate(sources, start=1):
        name, path = split_name(source)
        if path.is_dir():
            print(f"ensemble  evaluating {path} ({number} of {len(sources)})", file=sys.stderr, flush=True)
            member, matrix, its_owner = _of_workdir(path, name or path.resolve().name, wanted, data_dir)
        elif path.suffix == ".npy":
            if wanted.embedding != "fused":
                raise InputError(f"--ensemble {path}: a matrix has no {wanted.embedding} embedding; expected workdirs")
            saved = read_similarity(path, wanted)
            matrix, its_owner = saved.matrix, saved.image_of_caption
            member = Entry(name or path.stem, {}, saved.facts, image_ids=saved.image_ids)
        else:
            raise InputError(f"--ensemble {source}: expected a workdir or a similarity matrix, .npy")
        members.append(member)
        matrices.append(matrix)
        owners.append(its_owner)
    unlike = differences(members)
    if unlike:
        raise InputError(f"--ensemble: {unlike[0]}; expected similarities of the same pictures and captions")
    mean = similarity.mean(matrices)
    owner = owners[0]
    for member, other in zip(members, owners, strict=True):
        if not np.array_equal(owner, other):
            raise InputError(
                f"--ensemble: {members[0].name} and {member.name} give the captions to other pictures; expected "
                "similarities of the same pictures and captions"
            )
    # What a member does not state is not known of the mean.
    stated = {
        name: values[0]
        for name in Facts._fields
        if None not in (values := [getattr(member.facts, name) for member in members])
    }
    facts = Facts(**stated)
    unknown = [member.name for member in members if member.image_ids is None]
    order = (f"the pictures of {', '.join(unknown)} are taken to be in the order of the others'",) if unknown else ()
    folds = facts.folds or 1
    ranks = similarity.ranks_of(mean, owner, folds)
    names = [member.name for member in members]
    return Entry(
        name=f"ensemble of {' + '.join(names)}",
        figures=figures_of(recalls_of(mean_recall_over_folds(*ranks, owner, folds))),
        facts=facts,
        image_ids=None if unknown else members[0].image_ids,
        hits=hits_of(ranks, owner),
        notes=(f"an ensemble: the mean of {len(members)} similarities", *order),
    )


def _of_workdir(
    path: pathlib.Path, name: str, wanted: Wanted, data_dir: pathlib.Path | None
) -> tuple[Entry, Similarity, np.ndarray]:
    """Returns the facts, the similarity by the best checkpoint, and the picture of each caption."""
    experiment = Experiment.of_workdir(path, protocol=wanted.protocol)
    values = experiment.config.eval
    folds = wanted.folds or 1
    directory = data_dir or reading.data_directory(experiment.config, path)
    split = experiment.load_split(directory, wanted.split or values.test_split, (folds,))
    encoded = experiment.encode_with_best(split)
    matrix = protocols.similarity_of(encoded, wanted.embedding, values.consensus_weight)
    rule = values.label_neighbours if wanted.protocol == "label_completion" else ""
    facts = Facts(wanted.protocol, rule, split.name, folds, split.num_images, split.num_captions)
    return (
        Entry(name, {}, facts, image_ids=split.image_ids),
        matrix,
        split.image_of_caption,
    )
