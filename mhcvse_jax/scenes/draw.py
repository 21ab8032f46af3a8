"""Pictures of scenes, drawn with Pillow: anti-aliased objects on a plain background."""

import math
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mhcvse_jax.scenes.scene import RING_HOLE, Scene

_RGB = {
    "red": (214, 40, 40),
    "orange": (250, 140, 20),
    "yellow": (248, 220, 40),
    "green": (40, 150, 60),
    "blue": (40, 90, 215),
    "purple": (128, 50, 165),
    "pink": (250, 150, 195),
    "black": (38, 38, 42),
    "white": (246, 246, 246),
    "grey": (176, 178, 182),
    "beige": (226, 208, 172),
    "turquoise": (150, 216, 212),
}
_DARK_INK = ("orange", "yellow", "pink")  # colours too light for a pattern in white
_SUPERSAMPLING = 4
_PERIOD = 0.54  # of a pattern, as a fraction of the object's radius

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]


def draw(scene: Scene, image_size: int) -> Image.Image:
    """Returns an RGB picture of the scene, `image_size` pixels wide and high."""
    picture = Image.new("RGB", (image_size, image_size), _RGB[scene.background])
    for thing in scene.things:
        look = thing.look
        radius = max(2, round(thing.radius * image_size))
        outline, inner, ink = _masks(look.shape, look.pattern, radius)
        colour = _scaled(_RGB[look.colour], thing.lightness)
        left, top = (round(c * image_size) - outline.width // 2 for c in (thing.x, thing.y))
        picture.paste(_scaled(colour, 0.5), (left, top), outline)
        picture.paste(colour, (left, top), inner)
        if ink is not None:
            picture.paste(_scaled(colour, 0.42) if look.colour in _DARK_INK else (250, 250, 250), (left, top), ink)
    return picture


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(value * factor)) for value in colour)
    return red, green, blue


@cache
def _masks(shape: str, pattern: str, radius: int) -> tuple[Image.Image, Image.Image, Image.Image | None]:
    """Returns the masks of an object: its whole outline, the part within its border, and the pattern on that part."""
    outline, inner = _fine_masks(shape, radius)
    ink = None
    if pattern != "plain":
        ink = Image.new("L", outline.size)
        period = _PERIOD * _SUPERSAMPLING * radius
        _PATTERN_PAINTERS[pattern](ImageDraw.Draw(ink), outline.width, period)
        ink = ImageChops.multiply(ink, inner).reduce(_SUPERSAMPLING)
    return outline.reduce(_SUPERSAMPLING), inner.reduce(_SUPERSAMPLING), ink


@cache
def _fine_masks(shape: str, radius: int) -> tuple[Image.Image, Image.Image]:
    scale = _SUPERSAMPLING * radius
    half = _SUPERSAMPLING * math.ceil(1.2 * radius)
    outline = Image.new("L", (2 * half, 2 * half))
    _SHAPE_PAINTERS[shape](ImageDraw.Draw(outline), half, scale)
    border = max(1, round(0.05 * scale))
    return outline, outline.filter(ImageFilter.MinFilter(2 * border + 1))


def _polygon(canvas: ImageDraw.ImageDraw, half: float, scale: float, points: Points) -> None:
    canvas.polygon([(half + scale * x, half + scale * y) for x, y in points], fill=255)


def _disc(canvas: ImageDraw.ImageDraw, half: float, scale: float, x: float, y: float, radius: float, fill: int) -> None:
    left, top = half + scale * (x - radius), half + scale * (y - radius)
    canvas.ellipse((left, top, left + 2 * scale * radius, top + 2 * scale * radius), fill=fill)


def _circle(canvas: ImageDraw.ImageDraw, half: float, scale: float) -> None:
    _disc(canvas, half, scale, 0, 0, 0.95, 255)


def _square(canvas: ImageDraw.ImageDraw, half: float, scale: float) -> None:
    _polygon(canvas, half, scale, [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)])


def _triangle(canvas: ImageDraw.ImageDraw, half: float, scale: float) -> None:
    _polygon(canvas, half, scale, [(0, -1), (0.95, 0.7), (-0.95, 0.7)])


def _star(canvas: ImageDraw.ImageDraw, half: float, scale: float) -> None:
    radii = [1.12 if corner % 2 == 0 else 0.5 for corner in range(10)]
    angles = [math.pi * corner / 5 for corner in range(10)]
    points = [(r * math.sin(a), 0.06 - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]
    _polygon(canvas, half, scale, points)


def _cross(canvas: ImageDraw.ImageDraw, half: float, scale: float) -> None:
    _polygon(canvas, half, scale, [(-0.36, -1), (0.36, -1), (0.36, 1), (-0.36, 1)])
    _polygon(canvas, half, scale, [(-1, -0.36), (1, -0.36), (1, 0.36), (-1, 0.36)])


def _ring(canvas: ImageDraw.ImageDraw, half: float, scale: float) -> None:
    _disc(canvas, half, scale, 0, 0, 1, 255)
    _disc(canvas, half, scale, 0, 0, RING_HOLE, 0)


def _heart(canvas: ImageDraw.ImageDraw, half: float, scale: float) -> None:
    _disc(canvas, half, scale, -0.46, -0.33, 0.5, 255)
    _disc(canvas, half, scale, 0.46, -0.33, 0.5, 255)
    _polygon(canvas, half, scale, [(-0.88, -0.06), (0, -0.4), (0.88, -0.06), (0, 0.98)])


def _moon(canvas: ImageDraw.ImageDraw, half: float, scale: float) -> None:
    _disc(canvas, half, scale, 0, 0, 1, 255)
    _disc(canvas, half, scale, 0.55, -0.12, 0.8, 0)


def _stripes(canvas: ImageDraw.ImageDraw, side: int, period: float) -> None:
    for row in range(math.ceil(side / period)):
        canvas.rectangle((0, row * period, side, (row + 0.5) * period), fill=255)


def _dots(canvas: ImageDraw.ImageDraw, side: int, period: float) -> None:
    count = math.ceil(side / period / 2)
    for row in range(-count, count + 1):
        for column in range(-count, count + 1):
            _disc(canvas, side / 2, period, column + row % 2 / 2, row * 0.86, 0.29, 255)


def _checks(canvas: ImageDraw.ImageDraw, side: int, period: float) -> None:
    cell = 0.7 * period
    count = math.ceil(side / cell)
    for row in range(count):
        for column in range(row % 2, count, 2):
            left, top = column * cell, row * cell
            canvas.rectangle((left, top, left + cell, top + cell), fill=255)


_SHAPE_PAINTERS = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
    "moon": _moon,
}
_PATTERN_PAINTERS = {"striped": _stripes, "dotted": _dots, "checked": _checks}
