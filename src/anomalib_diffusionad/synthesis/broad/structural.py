# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Structural anomalies: parts that are from elsewhere, shifted, bent, or missing."""

import math
from typing import cast

import cv2
import numpy as np

from .fillings import moved, normal_image, recoloured
from .pixels import Array, blurred, largest, widened
from .places import blob, log_uniform, place
from .scene import Blend, Scene


def structural(image: Array, scene: Scene, rng: np.random.Generator) -> Blend:
    """An uneven spot of something that is normal elsewhere, or a bent part."""
    choice = rng.random()
    if choice < 0.45:  # from elsewhere
        other = moved(normal_image(scene, rng), scene.size / 16, scene.size / 1.5, rng)
        if rng.random() < 0.25:
            other = recoloured(other, rng)
    elif choice < 0.65:  # from nearby: outlines are broken
        other = moved(image, 2, scene.size / 8, rng, turned=False)
    elif choice < 0.85:
        return _bent(image, scene, rng)
    else:  # gone: one colour of the image covers it
        y, x = rng.integers(scene.size, size=2)
        colour = image[y, x] + rng.normal(0, 0.03, 3).astype(np.float32)
        other = colour + np.float32(0.01) * rng.standard_normal(image.shape, dtype=np.float32)
    weight = blob(scene, 3, scene.size / 4.5, rng)
    return Blend(other, weight if rng.random() < 0.7 else weight * np.float32(rng.uniform(0.4, 1)))


def _bent(image: Array, scene: Scene, rng: np.random.Generator) -> Blend:
    """A disc that is turned or pushed, the more the nearer to its middle."""
    y, x = place(scene, rng)
    radius = log_uniform(6, scene.size / 4, rng)
    axis = np.arange(scene.size, dtype=np.float32)
    down, right = np.meshgrid(axis - np.float32(y), axis - np.float32(x), indexing="ij")
    distance = np.sqrt(down**2 + right**2) / np.float32(radius)
    inside = np.clip(1 - distance, 0, 1)
    amount = inside**2 * (3 - 2 * inside)
    if rng.random() < 0.5:
        angle = np.float32(rng.choice([-1, 1]) * rng.uniform(0.6, 3)) * amount
        cos, sin = np.cos(angle), np.sin(angle)
        source_x, source_y = x + right * cos - down * sin, y + right * sin + down * cos
    else:
        heading, way = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.7) * radius
        source_x, source_y = x + right - way * math.cos(heading) * amount, y + down - way * math.sin(heading) * amount
    bent = cv2.remap(image, source_x, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    other = cast("Array", bent)
    differs = widened(blurred(largest(other - image), 1.5) > 0.03, 1)
    return Blend(other, (differs & (distance < 0.95)).astype(np.float32))
