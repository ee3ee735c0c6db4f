# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A rough grey surface with pores and uneven light; its defects are hairline cracks, faint and at times branched."""

from pathlib import Path

import cv2
import numpy as np

from anomalib_diffusionad.data.category import Mask

from .drawing import SIZE, Array, make_category, noise, stroked

KINDS = ("crack", "branched_crack")
SEED = 1  # beside that of the user, so that the categories differ
MASK_WIDTH = 3
# halves of a crack shorter than this are straight
STRAIGHT = 0.7


def make_cracked_surface(root: str | Path, train: int = 80, good: int = 20, defects: int = 15, seed: int = 0) -> Path:
    """Write the category ``cracked_surface``.

    Args:
        root: Folder to write to: ``root/cracked_surface`` in the MVTec AD layout.
        train: Number of normal training images.
        good: Number of normal test images.
        defects: Number of test images of each of the two kinds of defect.
        seed: Seed of everything that is drawn.

    Returns:
        The folder of the category.

    Raises:
        ValueError: If a number is negative; the message names it.
    """
    rng = np.random.default_rng([seed, SEED])
    return make_category(
        Path(root) / "cracked_surface", draw_surface, KINDS, rng, train=train, good=good, defects=defects
    )


def draw_surface(rng: np.random.Generator, defect: str | None = None) -> tuple[Array, Mask]:
    """Draw a surface, ``(S, S, 3)`` in [0, 1], and where it is cracked, bool ``(S, S)``."""
    height = noise(rng, 1.2) + 0.9 * noise(rng, 3) + 0.5 * noise(rng, 9)
    turn, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.08)
    slope_y, slope_x = np.gradient(height)
    grey = rng.uniform(0.42, 0.58) + strength * (np.cos(turn) * slope_x + np.sin(turn) * slope_y)
    grey += 0.025 * noise(rng, 20) + 0.02 * noise(rng, 0.6)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE - 0.5
    fall = rng.uniform(0, 2 * np.pi)
    grey += rng.uniform(0.02, 0.12) * (np.cos(fall) * x + np.sin(fall) * y) - rng.uniform(0, 0.12) * (x**2 + y**2)
    for _ in range(rng.integers(4, 14)):  # pores, which are as they should be
        row, column = rng.uniform(0, SIZE, 2)
        radius = rng.uniform(1, 3.2)
        spot = np.exp(-(((y + 0.5) * SIZE - row) ** 2 + ((x + 0.5) * SIZE - column) ** 2) / (2 * radius**2))
        grey -= rng.uniform(0.08, 0.22) * spot
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    if defect is not None:
        depth, mask = _crack(rng, branches=int(rng.integers(1, 4)) if defect == "branched_crack" else 0)
        grey = grey - depth
    image = grey + rng.normal(0, 0.01, (SIZE, SIZE))
    tint = np.array([1.0, 0.99, 0.97])
    return np.clip(image[..., None] * tint, 0, 1), mask


def _crack(rng: np.random.Generator, branches: int) -> tuple[Array, Mask]:
    """How dark a crack is, ``(S, S)``, and its mask."""
    start, inwards = rng.uniform(30, SIZE - 30, 2), rng.uniform(0.3, 0.7, 2) * SIZE
    heading = np.arctan2(*(inwards - start)[::-1]) + rng.normal(0, 0.3)
    main = _fracture(start, heading, rng.uniform(90, 200), rng)
    paths = [main]
    for _ in range(branches):
        place = int(rng.integers(len(main) // 5, 4 * len(main) // 5))
        ahead = main[place + 1] - main[place - 1]
        heading = np.arctan2(ahead[1], ahead[0]) + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
        paths.append(_fracture(main[place], heading, rng.uniform(25, 80), rng))
    widths = [rng.uniform(1.0, 2.0), *(rng.uniform(0.8, 1.3) for _ in range(branches))]
    line, mask = stroked(paths, widths), np.zeros((SIZE, SIZE), np.uint8)
    for path in paths:
        cv2.polylines(mask, [np.round(path).astype(np.int32)], isClosed=False, color=1, thickness=MASK_WIDTH)
    fading = 0.75 + 0.25 * np.clip(noise(rng, 12), -1.5, 1)
    return rng.uniform(0.18, 0.36) * cv2.GaussianBlur(line, (0, 0), 0.5) * fading, mask > 0


def _fracture(start: Array, heading: float, length: float, rng: np.random.Generator) -> Array:
    """A jagged path, whose halves are displaced again and again: ``(N, 2)``, x before y."""
    path = np.array([start, start + length * np.array([np.cos(heading), np.sin(heading)])])
    spread = 0.13 * length
    while spread > STRAIGHT:
        middle = (path[1:] + path[:-1]) / 2 + rng.normal(0, spread / 2, (len(path) - 1, 2))
        joined = np.empty((len(path) + len(middle), 2))
        joined[::2], joined[1::2] = path, middle
        path, spread = joined, 0.55 * spread
    return path
