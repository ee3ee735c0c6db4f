# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Weak anomalies, often large: stains, and changes of lightness, colour or sharpness."""

import cv2
import numpy as np

from .pixels import Array, blurred
from .places import blob, cloudy_shape
from .scene import Blend, Scene

MIN_SHIFT, MAX_SHIFT = 0.04, 0.25
SHARPNESS = (0.2, 0.5, 1.7, 2.5)


def weak(image: Array, scene: Scene, rng: np.random.Generator) -> Blend:
    """A spot with soft edges through which the image shows."""
    if rng.random() < 0.7:
        weight = blob(scene, 4, scene.size / 3.5, rng, soft=rng.uniform(1, 12) * scene.scale)
    else:
        weight = blurred(cloudy_shape(scene, rng), rng.uniform(0.5, 3) * scene.scale)
    return Blend(_changed(image, scene, rng), weight)


def _changed(image: Array, scene: Scene, rng: np.random.Generator) -> Array:
    choice = rng.random()
    if choice < 0.5:
        shift = rng.choice([-1, 1]) * rng.uniform(MIN_SHIFT, MAX_SHIFT)
        tint = rng.normal(0, 0.06, 3) if rng.random() < 0.5 else np.zeros(3)
        return image + (shift + tint).astype(np.float32)
    if choice < 0.65:
        side = 2 * (scene.size // 17) + 1
        around = cv2.blur(image, (side, side))
        return around + (image - around) * np.float32(rng.choice(SHARPNESS))
    if choice < 0.8:
        return blurred(image, rng.uniform(1, 5) * scene.scale)
    return image * rng.uniform(0.7, 1.25, 3).astype(np.float32)
