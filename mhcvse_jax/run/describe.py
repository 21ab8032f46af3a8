"""What a training run prints about itself before it starts."""

import pathlib
import shlex
from collections.abc import Sequence

import jax

from mhcvse_jax.config import Config
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.data.text import unknown_share
from mhcvse_jax.evaluation import provenance
from mhcvse_jax.experiment.parts import check_devices
from mhcvse_jax.experiment.reading import TrainingData


def describe_run(config: Config, workdir: pathlib.Path, arguments: Sequence[str]) -> None:
    """Prints what would run where; makes nothing and reads no data."""
    mesh = check_devices(config)
    processes, local = jax.process_count(), jax.local_device_count()
    print(f"command   {shlex.join(['python', '-m', 'mhcvse_jax.main', *arguments])}")
    print(f"workdir   {workdir}")
    print(f"processes {processes}, {local} devices each")
    print(f"devices   {provenance.device_name()}")
    print(f"mesh      {dict(mesh.shape)}")
    for key, size in (("batch_size", config.batch_size), ("eval.batch_size", config.eval.batch_size)):
        print(f"{key:<16} {size}: {size // processes} per process, {size // mesh.size} per device")


def describe_data(config: Config, data: TrainingData, test_split: Split, source: FeatureSource | None) -> None:
    """Prints devices, data, what made the features where known, vocabulary and concepts."""
    train, language, concepts = data.train, data.language, data.language.concepts
    regions, width = train.regions.shape[1:]
    splits = (train, data.dev, test_split)
    counts = "; ".join(
        f"{split.name} {split.num_images:,} pictures, {split.num_captions:,} captions" for split in splits
    )
    names = {"object": "objects", "property": "properties", "motion": "motions", "": "of no known kind"}
    kinds = ", ".join(f"{concepts.kinds.count(kind)} {names[kind]}" for kind in dict.fromkeys(concepts.kinds))
    if config.start_from:
        vectors = f"vectors of {config.start_from}"
    elif data.concepts_found is None:
        vectors = "random vectors"
    else:
        vectors = f"{config.concepts.vectors_path} has vectors of {data.concepts_found}"
    print(f"devices   {provenance.device_name()}, {config.compute_dtype}")
    if train.num_regions is not None:
        regions = f"{train.num_regions.min()} to {train.num_regions.max()}"
    elif train.zero_regions_are_padding:
        regions = f"up to {regions}"
    print(f"data      {counts}; {regions} regions of {width}, {train.regions.dtype}")
    if source:
        print(f"features  {source}")
    print(
        f"text      {len(language.vocabulary):,} tokens, "
        f"{100 * unknown_share(data.dev.tokens.ids):.2f}% of dev unknown; "
        f"captions of {train.lengths.mean():.1f} tokens, {train.lengths.max()} at most; "
        f"stop words {'removed' if language.remove_stop_words else 'kept'}"
    )
    if not concepts.words:
        print(f"concepts  none: {config.model.name} uses none", flush=True)
        return
    if not any(concepts.kinds) and not config.concepts.words_path and not config.start_from:
        print("concepts  the captions are not English sentences: taking the most frequent words of any kind")
    print(
        f"concepts  {len(concepts.words)} ({kinds}), {vectors}; "
        f"named by {100 * train.caption_labels.any(axis=1).mean():.1f}% of training captions, "
        f"{100 * train.image_labels.any(axis=1).mean():.1f}% of pictures",
        flush=True,
    )
