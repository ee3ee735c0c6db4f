# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Textured anomalies, after the paper's: a cloudy shape filled with a texture, or with the changed image itself."""

import numpy as np

from anomalib_diffusionad.synthesis.appearance import GRID

from .fillings import foreign, moved, normal_image, recoloured
from .pixels import Array
from .places import blob, cloudy_shape
from .scene import Blend, Scene

MIN_OPACITY = 0.2


def texture(image: Array, scene: Scene, rng: np.random.Generator) -> Blend:
    """A cloudy shape or an uneven spot, more or less transparent."""
    del image
    if rng.random() < scene.self_augmentation:
        other = recoloured(moved(normal_image(scene, rng), 4, scene.size / 2, rng), rng)
        if rng.random() < 0.5:
            other = _shuffled(other, rng)
    else:
        other = foreign(scene, rng)
    weight = cloudy_shape(scene, rng) if rng.random() < 0.6 else blob(scene, 3, scene.size / 5, rng)
    return Blend(other, weight * np.float32(rng.uniform(MIN_OPACITY, 1.0)))


def _shuffled(image: Array, rng: np.random.Generator) -> Array:
    """An image whose 8 x 8 patches lie in random order."""
    side = image.shape[0] // GRID
    patches = image.reshape(GRID, side, GRID, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    shuffled = patches[rng.permutation(len(patches))].reshape(GRID, GRID, side, side, 3)
    return shuffled.swapaxes(1, 2).reshape(image.shape)
