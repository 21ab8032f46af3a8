"""ECCV Caption, CxC and PMRP: retrieval on COCO's 5,000 test pictures with more correct answers than COCO's own.

COCO counts five captions as correct, though many others describe a picture. Three sets of annotations have more:

- ECCV Caption (Chun et al., ECCV 2022, arXiv:2204.03359): 1,261 pictures and 1,332 captions whose matches machines
  proposed and people checked. mAP@R, R-Precision and R@1.
- CxC, Crisscrossed Captions (Parekh et al., EACL 2021, arXiv:2004.15020): people's ratings of pairs. R@1, 5 and 10.
- PMRP (Chun et al., CVPR 2021, arXiv:2101.05068): R-Precision, plausible matches being pictures whose classes differ
  little. Its matches are not in the package: pm_image_to_caption.json and pm_caption_to_image.json are looked for in
  the data directory.

Annotations and measures are those of the package `eccv-caption`. It is given ranked lists in which a right answer comes
behind all wrong ones that are equally similar.
"""

import contextlib
import io
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.retrieval.one_way import BothWays, nearest

PLAUSIBLE_MATCHES = ("pm_image_to_caption.json", "pm_caption_to_image.json")
KS = (1, 5, 10)

Truth = Mapping[str, Mapping[int, Sequence[int]]]
"""By "i2t" and "t2i": the numbers of the right answers to each query, by its number."""


class Numbers(NamedTuple):
    """COCO's numbers of a split's pictures and captions."""

    images: np.ndarray  # <int64>[images]
    captions: np.ndarray  # <int64>[captions]


def load(metrics: Sequence[str], directory: pathlib.Path) -> Any:
    """Returns the package's annotations and measures, `eccv_caption.Metrics`.

    Args:
      metrics: what will be measured, from METRICS.
      directory: where PMRP's matches are.

    Raises:
      InputError: the package is not installed, or PMRP's matches are not there or damaged.
    """
    missing = [str(directory / name) for name in PLAUSIBLE_MATCHES if not (directory / name).is_file()]
    if "pmrp" in metrics and missing:
        raise InputError(
            f"--metrics pmrp: no {' and no '.join(missing)}; the page of eccv-caption, "
            "https://github.com/naver-ai/eccv-caption, says where they are"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # that a faster reader of JSON is not installed
            from eccv_caption import Metrics
    except ImportError:
        raise InputError('--metrics needs a package that is not installed; pip install "mhcvse_jax[metrics]"') from None
    try:
        found = Metrics()
        if "pmrp" in metrics:
            found.set_pm_gts(*(str(directory / name) for name in PLAUSIBLE_MATCHES))
        return found
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{directory}: PMRP's matches cannot be read ({error})") from error


def numbers_of(package: Any, captions: np.ndarray, image_of_caption: np.ndarray, num_images: int) -> Numbers:
    """Returns COCO's numbers of a split that holds all of COCO's test pictures; a picture's is that of its captions.

    Args:
      package: as `load` returns it.
      captions: <int64>[captions] COCO's numbers of the captions.
      image_of_caption: <int>[captions].
      num_images: pictures of the split.

    Raises:
      InputError: they are not COCO's test captions, some are missing, or a picture has the captions of two.
    """
    image_of_number = {caption: images[0] for caption, images in package.coco_gts["t2i"].items()}
    strange = [int(caption) for caption in captions if int(caption) not in image_of_number]
    if strange or len(captions) < len(image_of_number):
        why = f", and {len(strange):,} others, {strange[0]} the first" if strange else ""
        raise InputError(
            f"the split has {len(captions) - len(strange):,} of the {len(image_of_number):,} captions of COCO's "
            f"{len(package.coco_gts['i2t']):,} test pictures{why}; expected all of them, as in SCAN's testall"
        )
    own = np.array([image_of_number[int(caption)] for caption in captions], np.int64)
    images = np.full(num_images, -1, np.int64)
    images[image_of_caption] = own
    wrong = np.flatnonzero(images[image_of_caption] != own)
    if len(wrong) or (images < 0).any() or len(np.unique(images)) < num_images:
        caption = wrong[0] if len(wrong) else 0
        raise InputError(
            f"caption {captions[caption]} is of COCO's picture {own[caption]}, but stands with captions of "
            f"{images[image_of_caption[caption]]}; expected pictures and captions in one order"
        )
    return Numbers(images, captions)


def measure(ways: BothWays, numbers: Numbers, package: Any, metrics: Sequence[str]) -> dict[str, Any]:
    """Returns the measures in percent: by metric, measure and way, `["eccv"]["map_at_r"]["i2t"]` say.

    Args:
      ways: the scores of all pictures and captions.
      numbers: COCO's numbers of both.
      package: as `load` returns it.
      metrics: some of METRICS.
    """
    found: dict[str, Any] = {}
    for metric in metrics:
        truth: Truth = {"eccv": package.eccv_gts, "cxc": package.cxc_gts, "pmrp": package.pm_gts}[metric]
        lists = ranked(ways, numbers, truth, num=max(KS) if metric == "cxc" else None)
        if metric == "eccv":
            with contextlib.redirect_stderr(io.StringIO()):  # it shows bars, asked or not
                scores = package.eccv_metrics(lists, "all")
            found[metric] = {name.removeprefix("eccv_"): both for name, both in scores.items()}
        elif metric == "cxc":
            found[metric] = {f"r{k}": package.cxc_recalls(lists, "all", K=k) for k in KS}
        else:
            found[metric] = {"rprecision": package.pmrp(lists, "all")}
    return {
        metric: {
            name: {way: round(100 * float(value), 4) for way, value in both.items()} for name, both in measures.items()
        }
        for metric, measures in found.items()
    }


def ranked(ways: BothWays, numbers: Numbers, truth: Truth, num: int | None) -> dict[str, dict[int, list[int]]]:
    """Returns for "i2t" and "t2i" the numbers of the first candidates of each query of `truth`, by its number.

    Args:
      ways: the scores of all pictures and captions.
      numbers: COCO's numbers of both.
      truth: the right answers.
      num: candidates per query; None: as many as the longest list of right answers has.

    Raises:
      InputError: `truth` has a query that is not among the numbers.
    """
    lists = {}
    sides = {"i2t": (ways.i2t, numbers.images, numbers.captions), "t2i": (ways.t2i, numbers.captions, numbers.images)}
    for name, (way, query_numbers, candidate_numbers) in sides.items():
        query, candidate = (
            {int(number): i for i, number in enumerate(all_)} for all_ in (query_numbers, candidate_numbers)
        )
        answers = truth[name]
        strange = [number for number in answers if number not in query]
        if strange:
            raise InputError(
                f"annotations ({name}) of {strange[0]}, which is not among COCO's test pictures and captions"
            )
        pairs = [(query[one], candidate[right]) for one in answers for right in answers[one] if right in candidate]
        first = nearest(
            way,
            num or max(map(len, answers.values())),
            np.array([query[number] for number in answers]),
            np.array(pairs, int).reshape(-1, 2),
        )
        rows = candidate_numbers[first.candidates].tolist()
        lists[name] = dict(zip(answers, rows, strict=True))
    return lists


NAMES = {
    "eccv": ("ECCV Caption", {"map_at_r": "mAP@R", "rprecision": "R-Precision", "r1": "R@1"}),
    "cxc": ("CxC", {f"r{k}": f"R@{k}" for k in KS}),
    "pmrp": ("PMRP", {"rprecision": "R-Precision"}),
}


def describe(measured: dict[str, Any]) -> str:
    """Returns the measures as a table for a terminal."""
    lines = [f"{'COCO 5K, in percent':<26}|{'image to text':^15}|{'text to image':^15}|"]
    for metric, measures in measured.items():
        title, names = NAMES[metric]
        for key, name in names.items():
            both = measures[key]
            lines.append(f"{f'{title}, {name}':<26}|{both['i2t']:^15.1f}|{both['t2i']:^15.1f}|")
    return "\n".join(lines)
