# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Thin anomalies: scratches, hairs and cracks of half a pixel and up."""

import math

import cv2
import numpy as np

from .fillings import any_colour, foreign
from .pixels import Array, blurred
from .places import cloud, log_uniform, place
from .scene import Blend, Scene

SUPERSAMPLING = 3
MIN_WIDTH, MAX_WIDTH = 0.5, 3.2
TURNS_AVERAGED = 9


def thin(image: Array, scene: Scene, rng: np.random.Generator) -> Blend:
    """One line or a few of them, darker or brighter than what lies below, of one colour, or of a texture."""
    width, wander = log_uniform(MIN_WIDTH, MAX_WIDTH * scene.scale, rng), rng.uniform(0, 0.5)
    canvas = np.zeros((scene.size * SUPERSAMPLING, scene.size * SUPERSAMPLING), np.uint8)
    for _ in range(1 if rng.random() < 0.65 else int(rng.integers(2, 5))):
        path = np.round(_path(scene, wander, rng) * SUPERSAMPLING).astype(np.int32)
        thickness = max(1, round(width * SUPERSAMPLING * math.exp(rng.normal(0, 0.2))))
        cv2.polylines(canvas, [path], isClosed=False, color=255, thickness=thickness)
    weight = cv2.resize(canvas, (scene.size, scene.size), interpolation=cv2.INTER_AREA) / np.float32(255)
    if rng.random() < 0.4:
        weight = blurred(weight, rng.uniform(0.4, 1.0))
    if rng.random() < 0.5:  # fainter in places
        weight = weight * np.clip(0.7 + 0.5 * cloud(scene.size, 6, rng), 0.15, 1)
    return Blend(_colour(image, scene, rng), weight * np.float32(rng.uniform(0.35, 1.0)))


def _path(scene: Scene, wander: float, rng: np.random.Generator) -> Array:
    """Points ``(N, 2)``, x before y, a pixel apart: jagged about a line, or a curve; a place is in their middle."""
    y, x = place(scene, rng)
    heading, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.03)
    steps = int(log_uniform(5, scene.size * 0.9, rng))
    if rng.random() < 0.5:
        headings = heading + 0.6 * rng.normal(0, wander, steps) + bend * np.arange(steps)
    else:
        turns = rng.normal(0, wander, steps + TURNS_AVERAGED - 1)
        smooth = np.convolve(turns, np.full(TURNS_AVERAGED, 1 / TURNS_AVERAGED), "valid")
        headings = heading + np.cumsum(smooth + bend)
    path = np.cumsum(np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0)
    return path - path[steps // 2] + (x, y)


def _colour(image: Array, scene: Scene, rng: np.random.Generator) -> Array:
    choice = rng.random()
    if choice < 0.4:
        return image * np.float32(rng.uniform(0.1, 0.8))
    if choice < 0.65:
        return image + (1 - image) * np.float32(rng.uniform(0.2, 0.9))
    return any_colour(rng) if choice < 0.85 else foreign(scene, rng)
