# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What anomalies are filled with: colours, textures, and parts of images that are elsewhere."""

import math
from typing import cast

import cv2
import numpy as np

from .pixels import Array, mean
from .places import cloud, log_uniform
from .scene import Scene

OWN_IMAGE = 0.6
PLAIN = 0.15


def any_colour(rng: np.random.Generator) -> Array:
    """One colour, ``(3,)``."""
    return rng.random(3, dtype=np.float32)


def foreign(scene: Scene, rng: np.random.Generator) -> Array:
    """Something that is not of the image: a changed texture, or a cloudy colour; ``(S, S, 3)`` in [0, 1]."""
    if scene.texture is None or rng.random() < PLAIN:
        clouds = cloud(scene.size, 2 ** rng.uniform(1, 6), rng)
        return np.clip(any_colour(rng) + np.float32(rng.uniform(0, 0.3)) * clouds[..., None], 0, 1)
    texture = scene.texture()
    if rng.random() < 0.5:
        texture = np.roll(np.rot90(texture, int(rng.integers(4))), rng.integers(scene.size, size=2), (0, 1))
    if rng.random() < 0.3:  # without colour, as most dirt is
        texture = np.repeat(mean(texture), 3, axis=2)
    return recoloured(texture, rng)


def recoloured(image: Array, rng: np.random.Generator) -> Array:
    """Up to three random changes of lightness, contrast and colour."""
    for operation in rng.permutation(6)[: rng.integers(1, 4)]:
        if operation == 0:
            image = np.clip(image, 0, 1) ** np.float32(math.exp(rng.uniform(-0.8, 0.8)))
        elif operation == 1:
            image = image * np.float32(rng.uniform(0.6, 1.4)) + np.float32(rng.uniform(-0.2, 0.2))
        elif operation == 2:
            image = 1 - image
        elif operation == 3:
            image = image[..., rng.permutation(3)]
        elif operation == 4:
            grey = mean(image)
            image = grey + (image - grey) * np.float32(rng.uniform(0, 2))
        else:
            image = np.where(image > np.float32(rng.uniform(0.2, 0.8)), 1 - image, image)
    return np.clip(image, 0, 1)


def normal_image(scene: Scene, rng: np.random.Generator) -> Array:
    """The normal image itself, or another one."""
    if rng.random() < OWN_IMAGE or not scene.others:
        return scene.image
    return scene.others[int(rng.integers(len(scene.others)))]


def moved(image: Array, least: float, most: float, rng: np.random.Generator, *, turned: bool = True) -> Array:
    """An image that is shifted by this many pixels, and at times turned and scaled."""
    size = image.shape[0]
    heading, way = rng.uniform(0, 2 * np.pi), log_uniform(least, most, rng)
    angle = rng.uniform(-180, 180) if turned and rng.random() < 0.5 else 0.0
    scale = math.exp(rng.uniform(-0.3, 0.3)) if turned and rng.random() < 0.3 else 1.0
    y, x = rng.uniform(0, size, 2)
    matrix = cv2.getRotationMatrix2D((float(x), float(y)), angle, scale)
    matrix[:, 2] += way * np.cos(heading), way * np.sin(heading)
    there = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return cast("Array", there)
