"""The parts of a page about one run: facts, recalls, hubs, attention, concepts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mhcvse_jax.data import feature_source
from mhcvse_jax.data.text import stop_words
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment import parts, reading
from mhcvse_jax.reporting import concepts as concepts_lib
from mhcvse_jax.reporting import curves, facts, left_out, observed
from mhcvse_jax.reporting.attention import MARKS, Head, Looks, lit, lit_together, signed
from mhcvse_jax.reporting.left_out import Losses
from mhcvse_jax.reporting.matches import PictureOf
from mhcvse_jax.reporting.observed import Observed, Tested
from mhcvse_jax.reporting.page import ConceptPart, Hub, Hubs, LitHead, LitWord, LookedAt, PictureConcepts, Recalls
from mhcvse_jax.reporting.pictures import BLANK, Album, Overlays, Picture
from mhcvse_jax.reporting.queries import NEAR, top

WORDS_SHOWN = 14  # of a caption, each with a picture of its own
HUBS_SHOWN = 6
Bounds = Mapping[str, tuple[float, float]]


def picture_of(tested: Tested, image_dir: Any, album: Album) -> PictureOf:
    """Returns a function that finds a picture of the split in `image_dir`, and keeps it in the album."""
    names, (boxes, sizes) = tested.split.image_names, tested.places

    def found(image: int) -> Picture:
        path = None if names is None else image_dir / names[image]
        name = tested.split.image_ids[image] if names is None else names[image]
        size = None if sizes is None else sizes[image].tolist()
        extent = BLANK if boxes is None else np.maximum(boxes[image, :, 2:].max(axis=0), 1.0).tolist()
        return album.add(path, name, size, extent)

    return found


def described(run: Observed) -> list[tuple[str, str]]:
    """Returns what was run, in names and values."""
    config, results, tested = run.config, run.results, run.tested
    found = [("workdir", str(run.workdir))]
    choices = parts.choices(config)
    found.append(("model", f"{config.model.name}, D {config.model.embedding_dim}{choices and f', {choices}'}"))
    directory = config.data.dir or "the built-in scenes"
    found.append(("data", f"{directory} ({config.data.format})"))
    try:
        source = feature_source.read(run.workdir)
    except InputError as error:
        source = error
    if source:
        found.append(("features", str(source)))
    if tested:
        split, language = tested.split, tested.experiment.language
        shape = " x ".join(map(str, split.regions.shape[1:]))
        found.append((split.name, f"{split.num_images:,} pictures of {shape}, {split.num_captions:,} captions"))
        found.append(("vocabulary", f"{len(language.vocabulary):,} tokens, {len(language.concepts.words):,} concepts"))
    epochs, step = curves.num_epochs(run.log), curves.last_step(run.log)
    ended = "ended" if results else "has not ended"
    found.append(
        ("training", f"{epochs} epochs of at most {config.num_epochs}, {step:,} steps of {config.batch_size}; {ended}")
    )
    if tested:
        found.append(("checkpoint", tested.progress.best()))
    seconds = results.get("seconds") or (tested.progress.train_seconds if tested else 0)
    if seconds:
        found.append(("time", facts.duration(float(seconds))))
    found += [(key.replace("_", " "), str(results[key])) for key in ("device", "git_revision") if key in results]
    found.append(("seed", str(config.seed)))
    versions = results.get("versions", {})
    if versions:
        found.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return found


def recalls(evaluation: Evaluation, intervals: Mapping[str, Bounds]) -> list[Recalls]:
    """Returns the rows of the table.

    Args:
      evaluation: the ranks.
      intervals: by embedding, the bounds of each recall and of rsum; those of the whole split alone.
    """
    found = []
    for folds, kinds in evaluation.ranks.items():
        for kind in kinds:
            retrieval = evaluation.retrieval(folds, kind)
            values = [*retrieval.i2t[:3], *retrieval.t2i[:3], retrieval.rsum]
            bounds = list(intervals.get(kind, {}).values()) if folds == 1 else []
            cells = [(value, bounds[place] if bounds else None) for place, value in enumerate(values)]
            name = kind if folds == 1 else f"{kind}, mean of {folds} folds"
            found.append(Recalls(name, cells, [*retrieval.i2t[3:], *retrieval.t2i[3:]]))
    return found


def tested_on(evaluation: Evaluation) -> str:
    """Returns what the recalls are of."""
    completed = ", label_completion (transductive)" if evaluation.protocol == "label_completion" else ""
    return f"{evaluation.split}{completed}: {evaluation.num_images:,} pictures, {evaluation.num_captions:,} captions"


def hubs(tested: Tested, find: PictureOf) -> Hubs | None:
    """Returns the pictures that are most often found wrongly; None if there are none."""
    counts = tested.found.hubs
    means = counts.mean(axis=0)
    if not means.all():
        return None
    times = counts / means
    share = np.sort(times, axis=0)[::-1][: max(len(counts) // 100, 1)].sum(axis=0) / times.sum(axis=0)
    worst = top(times.sum(axis=1), HUBS_SHOWN).tolist()
    captions = [np.flatnonzero(tested.split.image_of_caption == image) for image in worst]
    return Hubs(
        NEAR,
        [
            Hub(
                find(image),
                tested.split.captions[own[0]] if len(own) else "(it has no caption)",
                (int(counts[image, 0]), int(counts[image, 1])),
                (float(times[image, 0]), float(times[image, 1])),
            )
            for image, own in zip(worst, captions, strict=True)
        ],
        float(share.mean()),
        len(counts),
    )


def looked_at(
    tested: Tested, pairs: Sequence[tuple[str, int, int]], find: PictureOf, overlays: Overlays
) -> list[LookedAt]:
    """Returns pairs, each a title, a caption and a picture, with where the model looks in them."""
    if not pairs:
        return []
    places = [(caption, image) for _, caption, image in pairs]
    found = zip(pairs, observed.looks(tested, places), left_out.losses(tested, places), strict=True)
    return [
        _looked_at(tested, title, caption, image, words, looks, losses, find(image), overlays)
        for (title, caption, image), (words, looks), losses in found
    ]


def _looked_at(
    tested: Tested,
    title: str,
    caption: int,
    image: int,
    words: list[str],
    looks: Looks,
    losses: Losses,
    picture: Picture,
    overlays: Overlays,
) -> LookedAt:
    boxes = tested.places.boxes
    boxes = None if boxes is None else np.asarray(boxes[image][: len(losses.regions)])
    row = tested.similarity.rows(image, image + 1)[0]
    told = tested.shows.of(image)
    light = lit_together(looks.word_regions)
    is_word = np.array([word not in MARKS and any(map(str.isalnum, word)) for word in words])
    is_content = is_word & [word not in stop_words() for word in words]
    is_shown = is_content if is_content.any() else is_word
    brightest = top(np.where(is_shown, light.max(axis=1), -1.0), min(WORDS_SHOWN, int(is_shown.sum())))

    strongest = int(np.argmax(np.abs(losses.words)))

    def of_most(weights: np.ndarray | None) -> str:
        return "" if weights is None or not told else told[int(np.argmax(weights))]

    def head(one: Head) -> LitHead:
        regions = None if one.regions is None else overlays.lit(picture, lit(one.regions), boxes)
        by_word = None if one.words is None else list(zip(words, lit(one.words).tolist(), strict=True))
        return LitHead(one, regions, of_most(one.regions), by_word)

    return LookedAt(
        title,
        tested.split.captions[caption],
        f"similarity {row[caption]:.3f}",
        (words[strongest], float(losses.words[strongest])),
        picture,
        overlays.lit(picture, np.maximum(signed(losses.regions), 0.0), boxes),
        list(zip(words, signed(losses.words).tolist(), strict=True)),
        [
            LitWord(words[place], overlays.lit(picture, light[place], boxes), of_most(light[place]))
            for place in sorted(brightest.tolist())
        ],
        looks.is_attention,
        [head(one) for one in looks.heads],
    )


def concept_part(tested: Tested, images: Sequence[int], find: PictureOf) -> ConceptPart | None:
    """Returns what the concepts of a model say, of these pictures among others; None where it has none."""
    vectors = observed.concept_vectors(tested)
    if vectors is None:
        return None
    experiment, labels = tested.experiment, tested.split.image_labels
    known = experiment.language.concepts
    return ConceptPart(
        concepts_lib.neighbours(known, reading.adjacency(known, experiment.config.concepts), vectors.embeddings),
        [
            PictureConcepts(
                find(image),
                concepts_lib.about(known.words, vectors.of_images[image], labels[image]),
                [known.words[place] for place in np.flatnonzero(labels[image])],
            )
            for image in images
        ],
    )
