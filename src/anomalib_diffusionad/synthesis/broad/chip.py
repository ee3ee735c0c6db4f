# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Chips: small, on outlines, where the other side grows or something foreign sits."""

import cv2
import numpy as np

from .fillings import any_colour, moved
from .pixels import Array
from .places import log_uniform, outline_place, place
from .scene import Blend, Scene

SUPERSAMPLING = 4
MIN_RADIUS, MAX_RADIUS = 1.2, 7
ANYWHERE = 0.3


def chip(image: Array, scene: Scene, rng: np.random.Generator) -> Blend:
    """A polygon of a few pixels."""
    y, x = place(scene, rng) if rng.random() < ANYWHERE else outline_place(scene, rng)
    corners = int(rng.integers(4, 9))
    turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = log_uniform(MIN_RADIUS, MAX_RADIUS * scene.scale, rng) * rng.uniform(0.5, 1.2, corners)
    polygon = np.stack([x + radii * np.cos(turns), y + radii * np.sin(turns)], axis=1)
    canvas = np.zeros((scene.size * SUPERSAMPLING, scene.size * SUPERSAMPLING), np.uint8)
    cv2.fillPoly(canvas, [np.round(polygon * SUPERSAMPLING).astype(np.int32)], 255)
    weight = cv2.resize(canvas, (scene.size, scene.size), interpolation=cv2.INTER_AREA) / np.float32(255)
    return Blend(_filling(image, scene, rng), weight)


def _filling(image: Array, scene: Scene, rng: np.random.Generator) -> Array:
    choice = rng.random()
    if choice < 0.55:
        return moved(image, 4, 16 * scene.scale, rng, turned=False)
    if choice < 0.8:
        return image + np.float32(rng.choice([-1, 1]) * rng.uniform(0.08, 0.5))
    return any_colour(rng)
