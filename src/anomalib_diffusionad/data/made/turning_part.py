# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A small machined lever with a toothed head that lies at any angle on a plain ground.

Its defects are a few pixels large: a nick in its outline, a tooth that is missing, a dent in its face, a burr.
"""

from pathlib import Path

import cv2
import numpy as np

from anomalib_diffusionad.data.category import Mask

from .drawing import SIZE, Array, filled, make_category, noise

KINDS = ("nick", "tooth", "dent", "burr")
TEETH = 7
SCALE = 1.4
SEED = 0  # beside that of the user, so that the categories differ
# the head lies off the middle, so that the whole part stays in the image
MIDDLE = (24, 0)
MIN_DEFECT = 60  # pixels


def make_turning_part(root: str | Path, train: int = 80, good: int = 20, defects: int = 8, seed: int = 0) -> Path:
    """Write the category ``turning_part``.

    Args:
        root: Folder to write to: ``root/turning_part`` in the MVTec AD layout.
        train: Number of normal training images.
        good: Number of normal test images.
        defects: Number of test images of each of the four kinds of defect.
        seed: Seed of everything that is drawn.

    Returns:
        The folder of the category.

    Raises:
        ValueError: If a number is negative; the message names it.
    """
    rng = np.random.default_rng([seed, SEED])
    return make_category(Path(root) / "turning_part", draw_part, KINDS, rng, train=train, good=good, defects=defects)


def draw_part(rng: np.random.Generator, defect: str | None = None) -> tuple[Array, Mask]:
    """Draw a lever at a random place and angle, ``(S, S, 3)`` in [0, 1], and where it is defective, bool ``(S, S)``."""
    angle, centre = rng.uniform(0, 2 * np.pi), SIZE / 2 + rng.uniform(-16, 16, 2)
    missing = int(rng.integers(TEETH)) if defect == "tooth" else None
    whole = _lever(angle, centre)
    shape = whole if missing is None else _lever(angle, centre, missing)
    mask = np.abs(whole - shape) > 0.3
    relief = cv2.GaussianBlur(shape, (0, 0), 2.5)
    if defect == "nick":
        shape, mask = _nick(shape, rng)
    elif defect == "burr":
        shape, mask = _burr(shape, rng)
    dent = np.zeros((SIZE, SIZE))
    if defect == "dent":
        dent, mask = _dent(shape, rng)

    # light from the upper left on the bevelled edge, on the brushed face and on the ground
    light_y, light_x = np.gradient(4 * relief + dent)
    metal = 0.58 + rng.uniform(-0.03, 0.03) - 0.5 * (light_x + light_y) + 0.035 * _brushed(angle, rng)
    metal += 0.06 * np.linspace(-1, 1, SIZE)[:, None] * rng.uniform(0.3, 1)
    ground = 0.2 + rng.uniform(-0.02, 0.02) + 0.012 * noise(rng, 6) + 0.03 * np.linspace(-1, 1, SIZE)[None, :]
    shadow = np.roll(cv2.GaussianBlur(shape, (0, 0), 4), (4, 4), (0, 1))
    ground = ground * (1 - 0.35 * shadow)
    image = shape * metal + (1 - shape) * ground
    image = cv2.GaussianBlur(image, (0, 0), 0.7) + rng.normal(0, 0.008, (SIZE, SIZE))
    tint = np.array([1.0, 0.985, 0.95]) + rng.uniform(-0.01, 0.01, 3)
    return np.clip(image[..., None] * tint, 0, 1), mask


def _lever(angle: float, centre: Array, missing: int | None = None) -> Array:
    """How much of each pixel the lever covers, ``(S, S)`` in [0, 1], with one tooth missing if wanted."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    outline, *holes = (SCALE * (corners - MIDDLE) @ turn + centre for corners in (_outline(missing), *_holes()))
    return filled(outline, holes=holes)


def _outline(missing: int | None) -> Array:
    """Corners about the middle of the head."""
    points = []
    pitch, start = 2 * np.pi * 0.8 / TEETH, 0.2 * np.pi
    for tooth in range(TEETH):
        top = 46 if tooth != missing else 36
        for place, radius in ((0.0, 36), (0.2, 36), (0.35, top), (0.65, top), (0.8, 36)):
            turn = start + (tooth + place) * pitch
            points.append((radius * np.cos(turn), radius * np.sin(turn)))
    # the arm, to the right: narrower at its end and with a step on one side
    points += [(34, -13), (62, -11), (62, -7), (92, -6), (97, 0), (92, 7), (40, 13)]
    return np.array(points)


def _holes() -> list[Array]:
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    slot = np.array([(48, -2), (76, -2), (76, 3), (48, 3)], dtype=float)
    return [12 * circle + (-4, 3), 4 * circle + (-20, -14), slot]


def _nick(shape: Array, rng: np.random.Generator) -> tuple[Array, Mask]:
    """A small notch, cut into the outline."""
    while True:
        cut = shape * (1 - _wedge(*_on_outline(shape, rng), rng.uniform(9, 15), rng))
        mask = (shape - cut) > 0.3
        if mask.sum() >= MIN_DEFECT:
            return cut, mask


def _burr(shape: Array, rng: np.random.Generator) -> tuple[Array, Mask]:
    """Material that stands out from the outline."""
    while True:
        grown = np.maximum(shape, _wedge(*_on_outline(shape, rng), rng.uniform(8, 13), rng))
        mask = (grown - shape) > 0.3
        if mask.sum() >= MIN_DEFECT:
            return grown, mask


def _dent(shape: Array, rng: np.random.Generator) -> tuple[Array, Mask]:
    """Height of a dent in the face: a bowl with a raised rim."""
    inside = cv2.erode((shape > 0.99).astype(np.uint8), np.ones((13, 13), np.uint8))
    rows, columns = np.nonzero(inside)
    place = rng.integers(len(rows))
    y, x = np.mgrid[:SIZE, :SIZE] - np.array([rows[place], columns[place]])[:, None, None]
    turn, stretch, radius = rng.uniform(0, np.pi), rng.uniform(1, 1.8), rng.uniform(5, 8)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    distance = np.hypot(along / stretch, across) / radius
    height = -rng.uniform(2.0, 3.2) * np.exp(-((1.3 * distance) ** 2)) + 0.3 * np.exp(-(((distance - 1.2) / 0.3) ** 2))
    return height, distance < 1.3


def _on_outline(shape: Array, rng: np.random.Generator) -> tuple[int, int]:
    solid = (shape > 0.5).astype(np.uint8)
    rows, columns = np.nonzero(solid - cv2.erode(solid, np.ones((3, 3), np.uint8)))
    place = rng.integers(len(rows))
    return int(rows[place]), int(columns[place])


def _wedge(row: int, column: int, radius: float, rng: np.random.Generator) -> Array:
    """An uneven polygon about a place, ``(S, S)`` in [0, 1]."""
    turns = np.sort(rng.uniform(0, 2 * np.pi, 7))
    radii = radius * rng.uniform(0.6, 1, 7)
    return filled(np.stack([column + radii * np.cos(turns), row + radii * np.sin(turns)], axis=1))


def _brushed(angle: float, rng: np.random.Generator) -> Array:
    """Fine lines along the part, of standard deviation 1."""
    lines = cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)), (0, 0), sigmaX=12, sigmaY=0.8)
    turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), -np.degrees(angle), 1)
    turned = cv2.warpAffine(lines, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
    return turned / turned.std()
