"""A picture of a few queries with their best matches, the correct ones marked (the paper's Figure 4)."""

import contextlib
import functools
import importlib.util
import pathlib
import textwrap
import warnings
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mhcvse_jax.data.dataset import Split
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols
from mhcvse_jax.files.whole import whole_file

TOP = 5
TILE = 150  # pixels of a picture's longer side
GAP = 12
LINE = 19
WIDTH = TOP * (TILE + GAP) + GAP
SAMPLE = 15  # points of the font that letters are looked for in
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "msyh.ttc", "PingFang.ttc"),
)
"""Looked for where the machine keeps its fonts, besides Pillow's own, which has only Latin letters."""
PACKAGED = "cvttf_NotoSansCJK_Regular"
"""Of the extra `fonts`: Noto Sans CJK, which has Latin, Greek, Cyrillic, Chinese, Japanese and Korean letters."""
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Face: TypeAlias = Callable[[int], Font]
"""A font by its size."""
RIGHT, WRONG, INK = (20, 140, 60), (190, 190, 190), (25, 25, 25)


def draw(
    encoded: protocols.Found,
    split: Split,
    image_dir: pathlib.Path,
    path: pathlib.Path,
    *,
    consensus_weight: float,
    num_queries: int,
    seed: int,
) -> None:
    """Writes a PNG of captions with their top five pictures, and of pictures with their top five captions.

    Queries are drawn at random by `seed`, not chosen.

    Raises:
      InputError: as `names_of` does.
    """
    names = names_of(split, image_dir)
    rng = np.random.default_rng(seed)
    captions = rng.choice(split.num_captions, min(num_queries, split.num_captions), replace=False)
    described = np.unique(split.image_of_caption)  # to a picture without captions there is no right answer
    images = rng.choice(described, min(num_queries, len(described)), replace=False)
    similarity = protocols.similarity_of(encoded, "fused", consensus_weight)
    columns = np.concatenate([block[:, captions] for _, block in similarity.blocks()])
    top_images = _top(columns.T)
    top_captions = _top(np.concatenate([similarity.rows(i, i + 1) for i in images.tolist()]))
    shown = [split.captions[i] for i in {*captions.tolist(), *top_captions.flatten().tolist()}]
    face, lacking = find_face(set("".join([*shown, *names])))
    if lacking:
        hint = "" if _packaged() else "; pip install 'mhcvse_jax[fonts]' adds a font with most letters"
        print(f"matches   no font on this machine has {lacking[:40]}: they are drawn as boxes{hint}")
    tiles = {i: _tile(image_dir / names[i], face) for i in {*images.tolist(), *top_images.flatten().tolist()}}
    rows = [
        _caption_row(face, split.captions[caption], [(tiles[i], i == own) for i in top.tolist()])
        for caption, own, top in zip(captions, split.image_of_caption[captions], top_images, strict=True)
    ]
    rows += [
        _image_row(face, tiles[image], [(split.captions[i], split.image_of_caption[i] == image) for i in top.tolist()])
        for image, top in zip(images.tolist(), top_captions, strict=True)
    ]
    sheet = Image.new("RGB", (WIDTH, sum(row.height for row in rows)), "white")
    y = 0
    for row in rows:
        sheet.paste(row, (0, y))
        y += row.height
    with whole_file(path) as partial:
        sheet.save(partial, format="PNG")


def names_of(split: Split, image_dir: pathlib.Path) -> list[str]:
    """Returns the file names of a split's pictures.

    Raises:
      InputError: the names are not known, or none of the files is in `image_dir`.
    """
    names = split.image_names
    if names is None:
        raise InputError(
            f"the file names of the {split.name} pictures are not known; expected {split.name}_image_names.txt or "
            "Karpathy's dataset_*.json beside the features"
        )
    if not image_dir.is_dir():
        raise InputError(f"{image_dir}: no such directory; expected the {split.name} pictures, {names[0]} for example")
    if not any((image_dir / name).exists() for name in names):
        raise InputError(f"{image_dir}: none of the {split.name} pictures is there, {names[0]} for example")
    return names


def _top(similarity: np.ndarray) -> np.ndarray:
    return np.argsort(-similarity, axis=1, kind="stable")[:, :TOP]


def _tile(path: pathlib.Path, face: Face) -> Image.Image:
    """Returns the picture at the tile's size; a grey tile with its name if the file cannot be read."""
    tile = Image.new("RGB", (TILE, TILE), (235, 235, 235))
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # that it is large
            picture = image.convert("RGB")
    except Exception:  # a damaged or huge picture fails in almost any way
        ImageDraw.Draw(tile).text((6, TILE // 2), textwrap.fill(path.name, 20), fill=INK, font=face(11))
        return tile
    scale = TILE / max(picture.size)
    picture = picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)))
    tile.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return tile


def find_face(letters: Iterable[str]) -> tuple[Face, str]:
    """Returns the machine's font, or Pillow's own, that lacks the fewest of these letters, and which it lacks."""
    found: list[tuple[Face, str]] = [(ImageFont.load_default, _lacking(ImageFont.load_default(SAMPLE), letters))]
    for name in (*FONTS, *_packaged()):
        with contextlib.suppress(OSError):
            font = ImageFont.truetype(name, SAMPLE)
            found.append((functools.partial(ImageFont.truetype, name), _lacking(font, letters)))
    return min(found, key=lambda one: len(one[1]))


def _packaged() -> list[str]:
    """Returns the font that the extra provides, if it is installed."""
    package = importlib.util.find_spec(PACKAGED)
    places = package.submodule_search_locations if package else None
    return [str(path) for place in places or () for path in pathlib.Path(place).glob("*.otf")]


def _lacking(font: Font, letters: Iterable[str]) -> str:
    """Returns the letters that a font lacks: it draws them like a character that does not exist."""

    def look(letter: str) -> bytes:
        tile = Image.new("L", (4 * SAMPLE, 2 * SAMPLE))
        ImageDraw.Draw(tile).text((0, 0), letter, fill=255, font=font)
        return tile.tobytes()

    missing = look("\U0010ffff")
    return "".join(sorted(letter for letter in letters if not letter.isspace() and look(letter) == missing))


def _caption_row(face: Face, caption: str, found: list[tuple[Image.Image, bool]]) -> Image.Image:
    """Returns a caption above its top pictures, a right one framed in green."""
    lines = textwrap.wrap(caption, 105)
    row = Image.new("RGB", (WIDTH, GAP + LINE * len(lines) + 6 + TILE + 2 * GAP), "white")
    pen = ImageDraw.Draw(row)
    for i, line in enumerate(lines):
        pen.text((GAP, GAP + i * LINE), line, fill=INK, font=face(15))
    y = GAP + LINE * len(lines) + 6
    for place, (tile, is_right) in enumerate(found):
        x = GAP + place * (TILE + GAP)
        row.paste(tile, (x, y))
        _frame(pen, (x, y), is_right)
    return row


def _image_row(face: Face, tile: Image.Image, found: list[tuple[str, bool]]) -> Image.Image:
    """Returns a picture beside its top captions, right ones in green and ticked."""
    row = Image.new("RGB", (WIDTH, TILE + 3 * GAP), "white")
    row.paste(tile, (GAP, GAP))
    pen = ImageDraw.Draw(row)
    for place, (caption, is_right) in enumerate(found):
        text = f"{place + 1}. {textwrap.shorten(caption, 82, placeholder=' ...')}"
        y = GAP + place * (TILE // TOP) + 4
        colour = RIGHT if is_right else INK
        pen.text((TILE + 3 * GAP + 14, y), text, fill=colour, font=face(14))
        if is_right:
            x = TILE + 2 * GAP + 4
            pen.line([(x, y + 9), (x + 5, y + 14), (x + 14, y + 3)], fill=RIGHT, width=3)
    return row


def _frame(pen: ImageDraw.ImageDraw, corner: tuple[int, int], is_right: bool) -> None:
    x, y = corner
    width = 5 if is_right else 1
    pen.rectangle((x - 3, y - 3, x + TILE + 2, y + TILE + 2), outline=RIGHT if is_right else WRONG, width=width)
