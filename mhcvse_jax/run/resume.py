"""What a resumed run must have in common with the run that it resumes."""

import pathlib

import numpy as np

from mhcvse_jax import config as config_lib
from mhcvse_jax.config import Config
from mhcvse_jax.data.dataset import Language
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import reading
from mhcvse_jax.run.workdir import check_can_be_made, is_begun, is_finished


def check_workdir(workdir: pathlib.Path, config: Config) -> None:
    """Checks that a workdir can be made, or is one of this configuration; writes nothing.

    A run that left no checkpoint may be started with another.

    Raises:
      InputError: it cannot be written, or belongs to a run with another configuration.
    """
    check_can_be_made(workdir)
    path = workdir / "config.json"
    if path.exists() and (is_begun(workdir) or is_finished(workdir)):
        saved = config_lib.load(path)
        for key in (name for name, one in config_lib.KEYS.items() if one.resume == config_lib.SAME):
            old, new = config_lib.lookup(saved, key), config_lib.lookup(config, key)
            if old != new:
                raise InputError(
                    f"{workdir} holds a run with config.{key}={old!r}, not {new!r}; expected the same, or another "
                    "--workdir"
                )


def check_start(config: Config) -> None:
    """Raises InputError where `start_from` is no run, one of another model, or one that reads captions otherwise."""
    if not config.start_from:
        return
    path = pathlib.Path(config.start_from) / "config.json"
    start = config_lib.load(path)
    from mhcvse_jax import models  # here, so that a sweep need not wait for JAX

    unread = {f"model.{name}" for name in config.model} - {f"model.{name}" for name in models.keys(config.model.name)}
    kept = [name for name, key in config_lib.KEYS.items() if key.start == config_lib.SAME]
    for key in (name for name in kept if name == "model.name" or name not in unread):
        old, new = config_lib.lookup(start, key), config_lib.lookup(config, key)
        if old != new:
            raise InputError(
                f"{path} has {key} {old!r}, and config.{key} is {new!r}; expected the same where a run starts from it"
            )


def keep_language(config: Config, language: Language, workdir: pathlib.Path) -> None:
    """Saves vocabulary and concepts in the workdir, or checks that they are those of the run that it holds.

    Raises:
      InputError: the data have changed since: a resumed model would read other words, or use another graph.
    """
    if not is_begun(workdir):
        language.save(workdir)
        return
    from mhcvse_jax import models  # here, so that a sweep need not wait for JAX

    saved = reading.load_language(workdir, config)
    same = {
        "words": saved.vocabulary.words == language.vocabulary.words,
    }
    of_concepts = {
        "concepts": saved.concepts.words == language.concepts.words,
        "counts of concepts": np.array_equal(saved.concepts.occurrences, language.concepts.occurrences)
        and np.array_equal(saved.concepts.cooccurrences, language.concepts.cooccurrences),
        "concept graph": np.array_equal(
            reading.adjacency(saved.concepts, config.concepts), reading.adjacency(language.concepts, config.concepts)
        ),
        "concept vectors": np.array_equal(saved.concept_vectors, language.concept_vectors),
    }
    if models.has_concepts(config.model.name):
        same |= of_concepts
    for name, is_same in same.items():
        if not is_same:
            raise InputError(
                f"{workdir} holds a run with other {name} than these data give; expected the data that it began "
                "with, or another --workdir"
            )
