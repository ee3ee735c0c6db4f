# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Where anomalies lie, and the shapes that fill a place."""

import math

import cv2
import numpy as np

from .pixels import Array
from .scene import Scene

ON_FOREGROUND = 0.5


def place(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """A row and a column: half of them on the foreground, half anywhere, so that the place alone says nothing."""
    if rng.random() < ON_FOREGROUND and len(scene.spots):
        return _split(scene.spots[rng.integers(len(scene.spots))], scene.size)
    y, x = rng.uniform(0, scene.size, 2)
    return float(y), float(x)


def outline_place(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """A row and a column where the image is steep."""
    return _split(scene.outlines[rng.integers(len(scene.outlines))], scene.size)


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    """A number between two others, of any magnitude equally often."""
    return math.exp(rng.uniform(math.log(low), math.log(max(low, high))))


def cloud(size: int, cells: float, rng: np.random.Generator) -> Array:
    """Smooth noise ``(size, size)`` of standard deviation about 1, with this many cells along an axis or fewer."""
    stretch = math.exp(rng.uniform(-0.7, 0.7))
    shape = max(2, round(cells * stretch)) + 2, max(2, round(cells / stretch)) + 2
    coarse = rng.standard_normal(shape, dtype=np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(1.3)


def blob(scene: Scene, low: float, high: float, rng: np.random.Generator, soft: float | None = None) -> Array:
    """An uneven spot.

    Args:
        scene: Where it lies.
        low: Smallest radius in pixels.
        high: Largest radius.
        rng: Source of randomness.
        soft: Width of its edge in pixels; between half a pixel and two if None.

    Returns:
        Weights ``(S, S)`` in [0, 1].
    """
    y, x = place(scene, rng)
    radius = log_uniform(low, high, rng)
    turn, stretch = rng.uniform(0, np.pi), math.exp(rng.uniform(0, 0.8))
    axis = np.arange(scene.size, dtype=np.float32)
    rows, columns = axis[:, None] - np.float32(y), axis[None] - np.float32(x)
    cos, sin = math.cos(turn), math.sin(turn)
    along, across = (columns * cos + rows * sin) / stretch, (rows * cos - columns * sin) * stretch
    cornered = rng.random() < 0.25
    distance = np.maximum(np.abs(along), np.abs(across)) if cornered else np.sqrt(along**2 + across**2)
    bumps = cloud(scene.size, scene.size / radius * rng.uniform(0.4, 1.2) + 1, rng)
    uneven = np.float32(rng.uniform(0, 0.6) * radius) * bumps
    soft = rng.uniform(0.5, 2.0) if soft is None else soft
    return np.clip((radius - distance + uneven) / soft + 0.5, 0, 1)


def cloudy_shape(scene: Scene, rng: np.random.Generator) -> Array:
    """A thresholded cloud of any scale, near a place or all over: weights ``(S, S)`` in [0, 1]."""
    noise = cloud(scene.size, 2 ** rng.uniform(0.5, 5), rng)
    shape = np.clip((noise - np.float32(rng.uniform(0.9, 1.6))) * np.float32(rng.uniform(2, 10)), 0, 1)
    if rng.random() < 0.6:
        shape = shape * blob(scene, scene.size / 12, scene.size / 3, rng, soft=3 * scene.scale)
    return shape


def _split(position: np.int64, size: int) -> tuple[float, float]:
    y, x = divmod(int(position), size)
    return float(y), float(x)
