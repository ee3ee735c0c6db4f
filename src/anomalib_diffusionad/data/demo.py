# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A small data set in the MVTec AD layout, made on the spot from photographs that scikit-image ships.

Normal images are crops of a photograph of a texture: test crops from a band in its middle, training crops from both
sides of it. Defects are drawn in ways that the training synthesis does not use. Crops of other photographs serve as
``anomaly_source``.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from skimage import data as photographs
from skimage.filters import gaussian
from skimage.transform import swirl
from skimage.util import img_as_float

from .category import save_picture, write_category

CATEGORIES = ("brick", "grass", "gravel")
SOURCES = ("astronaut", "chelsea", "coffee", "camera", "coins", "moon", "rocket")
CROP = 128
# columns of the band that test crops come from, as shares of the width
BAND = (0.34, 0.66)

Array = NDArray[np.float64]


def make_demo_data(
    root: str | Path,
    category: str = "brick",
    train: int = 200,
    good: int = 20,
    defects: int = 10,
    seed: int = 0,
) -> Path:
    """Write one category of the demo data and the textures for its ``anomaly_source``.

    Args:
        root: Folder to write to: ``root/CATEGORY`` in the MVTec AD layout and ``root/textures``.
        category: ``"brick"``, ``"grass"`` or ``"gravel"``.
        train: Number of normal training images.
        good: Number of normal test images.
        defects: Number of test images of each kind of defect.
        seed: Seed of crops and defects.

    Returns:
        The folder of the category.

    Raises:
        ValueError: If the category is unknown.
    """
    if category not in CATEGORIES:
        msg = f"category must be one of {', '.join(CATEGORIES)}, got {category!r}."
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    folder = Path(root) / category
    photograph = _photograph(category)
    left, right = (round(photograph.shape[1] * edge) for edge in BAND)
    sides, band = (photograph[:, :left], photograph[:, right:]), photograph[:, left:right]
    write_category(
        folder,
        train=(_crop(sides[number % 2], rng) for number in range(train)),
        good=(_crop(band, rng) for _ in range(good)),
        defective=((kind, *draw(_crop(band, rng), rng)) for kind, draw in DEFECTS.items() for _ in range(defects)),
    )
    for source in SOURCES:
        photograph = _photograph(source)
        for number in range(10):
            save_picture(_crop(photograph, rng), Path(root) / "textures" / source / f"{number:03d}.png")
    return folder


def _scratch(image: Array, rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """A thin bright or dark line with a few corners."""
    start, heading = rng.uniform(0.2, 0.8, 2) * CROP, rng.uniform(0, 2 * np.pi)
    points = [start]
    for _ in range(rng.integers(2, 5)):
        heading += rng.normal(0, 0.4)
        points.append(points[-1] + rng.uniform(12, 25) * np.array([np.cos(heading), np.sin(heading)]))
    mask = _draw(lambda pen: pen.line([tuple(point) for point in points], fill=255, width=int(rng.integers(4, 7))))
    return _paint(image, mask, np.full(3, rng.choice([0.05, 0.95])), opacity=0.85), mask > 0.5


def _stain(image: Array, rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """A coloured blot with a soft edge, through which the surface shows."""
    centre = rng.uniform(0.25, 0.75, 2) * CROP
    blots = [(centre + rng.normal(0, 8, 2), rng.uniform(7, 15)) for _ in range(3)]

    def circles(pen: ImageDraw.ImageDraw) -> None:
        for (x, y), radius in blots:
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)

    mask = _draw(circles, blur=2)
    colour = np.array([[0.35, 0.18, 0.05], [0.1, 0.2, 0.45], [0.05, 0.05, 0.05]])[rng.integers(3)]
    return _paint(image, mask, colour, opacity=0.7), mask > 0.5


def _missing(image: Array, rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """A flat polygon where the surface has broken away."""
    centre, corners = rng.uniform(0.25, 0.75, 2) * CROP, int(rng.integers(5, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(9, 22, corners)
    polygon = [(centre[0] + r * np.cos(a), centre[1] + r * np.sin(a)) for a, r in zip(angles, radii, strict=True)]
    mask = _draw(lambda pen: pen.polygon(polygon, fill=255))
    return _paint(image, mask, np.full(3, rng.choice([0.15, 0.85])), opacity=1.0), mask > 0.5


def _bent(image: Array, rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """A whirl that bends the lines of the surface, put where there are lines to bend."""
    while True:
        centre, radius = rng.uniform(0.3, 0.7, 2) * CROP, rng.uniform(35, 45)
        bent = swirl(image, center=tuple(centre), strength=rng.choice([-1, 1]) * rng.uniform(8, 12), radius=radius)
        mask = gaussian(np.abs(bent - image).mean(axis=2), sigma=1.5) > 0.05
        if mask.mean() > 0.03:
            return np.where(mask[..., None], bent, image), mask


DEFECTS: dict[str, Callable[[Array, np.random.Generator], tuple[Array, NDArray[np.bool_]]]] = {
    "bent": _bent,
    "missing": _missing,
    "scratch": _scratch,
    "stain": _stain,
}


def _photograph(name: str) -> Array:
    image = img_as_float(getattr(photographs, name)())
    return image[..., :3] if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _crop(photograph: Array, rng: np.random.Generator) -> Array:
    top = rng.integers(photograph.shape[0] - CROP + 1)
    left = rng.integers(photograph.shape[1] - CROP + 1)
    return photograph[top : top + CROP, left : left + CROP]


def _draw(draw: Callable[[ImageDraw.ImageDraw], None], blur: float = 0) -> Array:
    """A mask in [0, 1] of what ``draw`` paints."""
    canvas = Image.new("L", (CROP, CROP))
    draw(ImageDraw.Draw(canvas))
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(blur))) / 255


def _paint(image: Array, mask: Array, colour: Array, opacity: float) -> Array:
    weight = opacity * mask[..., None]
    return (1 - weight) * image + weight * colour
