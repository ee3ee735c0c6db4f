# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What the made categories are drawn with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_diffusionad.checks import require_at_least
from anomalib_diffusionad.data.category import Mask, write_category

SIZE = 256
SUPERSAMPLING = 4

Array = NDArray[np.float64]
# (random numbers, kind of defect or None) -> image (S, S, 3) in [0, 1] and where it is defective, bool (S, S)
Draw = Callable[[np.random.Generator, str | None], tuple[Array, Mask]]


def make_category(
    folder: Path,
    draw: Draw,
    kinds: Sequence[str],
    rng: np.random.Generator,
    *,
    train: int,
    good: int,
    defects: int,
) -> Path:
    """Draw and write a category.

    Args:
        folder: Folder of the category.
        draw: Draws an image.
        kinds: Kinds of defects.
        rng: Source of randomness.
        train: Number of normal training images.
        good: Number of normal test images.
        defects: Number of test images of each kind of defect.

    Returns:
        The folder.

    Raises:
        ValueError: If a number is negative; the message names it.
    """
    for name, number in (("train", train), ("good", good), ("defects", defects)):
        require_at_least(name, number, 0)
    write_category(
        folder,
        train=(draw(rng, None)[0] for _ in range(train)),
        good=(draw(rng, None)[0] for _ in range(good)),
        # kinds take turns, so that the first images of each stay the same where there are more
        defective=((kind, *draw(rng, kind)) for _ in range(defects) for kind in kinds),
    )
    return folder


def filled(*polygons: Array, holes: Sequence[Array] = ()) -> Array:
    """How much of each pixel polygons cover that have holes: ``(S, S)`` in [0, 1]; corners ``(N, 2)``, x before y."""
    canvas = np.zeros((SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING), np.uint8)
    for corners, value in (*((each, 255) for each in polygons), *((each, 0) for each in holes)):
        cv2.fillPoly(canvas, [_fine(corners)], value)
    return _coverage(canvas)


def stroked(paths: Sequence[Array], widths: Sequence[float]) -> Array:
    """How much of each pixel lines cover: ``(S, S)`` in [0, 1]; paths ``(N, 2)``, x before y, widths in pixels."""
    canvas = np.zeros((SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING), np.uint8)
    for path, width in zip(paths, widths, strict=True):
        cv2.polylines(canvas, [_fine(path)], isClosed=False, color=255, thickness=round(SUPERSAMPLING * width))
    return _coverage(canvas)


def noise(rng: np.random.Generator, sigma: float) -> Array:
    """Smooth noise of standard deviation 1, ``(S, S)``."""
    values = cast("Array", cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE)), (0, 0), sigma))
    return values / values.std()


def _fine(points: Array) -> NDArray[np.int32]:
    return np.round(points * SUPERSAMPLING).astype(np.int32)


def _coverage(canvas: NDArray[np.uint8]) -> Array:
    return np.asarray(cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA) / 255.0, dtype=np.float64)
