# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The original's mask recipe, image by image and pixel by pixel as it is described, to compare with."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import rotate

THRESHOLD = 0.5
RETRIES = 50


def perlin(rows: int, columns: int, angles: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Perlin noise with given gradient directions at the lattice points, ``(rows + 1, columns + 1)`` of them."""
    y = np.arange(size) / size * rows
    x = np.arange(size) / size * columns
    top, left = y.astype(int), x.astype(int)
    y, x = (y - top)[:, None], (x - left)[None, :]

    def dot(down: int, right: int) -> NDArray[np.float64]:
        angle = angles[np.ix_(top + down, left + right)]
        return np.sin(angle) * (y - down) + np.cos(angle) * (x - right)

    fade_y, fade_x = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (y, x))
    upper = dot(0, 0) + fade_x * (dot(0, 1) - dot(0, 0))
    lower = dot(1, 0) + fade_x * (dot(1, 1) - dot(1, 0))
    return np.sqrt(2) * (upper + fade_y * (lower - upper))


def mask(rng: np.random.Generator, foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One anomaly mask: random scales and rotation, threshold, and another try while it misses the foreground."""
    size = foreground.shape[0]
    result = np.zeros_like(foreground)
    for _ in range(RETRIES):
        rows, columns = 2 ** rng.integers(0, 6, 2)
        noise = perlin(rows, columns, rng.uniform(0, 2 * np.pi, (rows + 1, columns + 1)), size)
        noise = rotate(noise, rng.uniform(-90, 90), reshape=False, order=1, mode="constant")
        result = (noise > THRESHOLD) & foreground
        if result.any():
            break
    return result
