# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Drawn pictures of an object and of a texture."""

import numpy as np
from scipy.ndimage import gaussian_filter


def draw_object(
    size: int,
    background: tuple[int, int, int] = (60, 60, 60),
    colour: tuple[int, int, int] = (200, 160, 90),
    noise: float = 8,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """An ellipse on a noisy background, uint8 ``(S, S, 3)``, and its mask, bool ``(S, S)``."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    mask = ((x - 0.5) / 0.3) ** 2 + ((y - 0.45) / 0.2) ** 2 < 1
    image = np.where(mask[..., None], colour, background)
    # the same noise on all channels, so that grey colours give grey pictures
    image = image + np.random.default_rng(seed).normal(0, noise, (size, size, 1))
    return image.clip(0, 255).astype(np.uint8), mask


def draw_texture(size: int, seed: int = 0) -> np.ndarray:
    """Blotches all over the picture, uint8 ``(S, S, 3)``."""
    blotches = gaussian_filter(np.random.default_rng(seed).normal(0, 1, (size, size, 3)), (3, 3, 0))
    return (128 + 40 * blotches / blotches.std()).clip(0, 255).astype(np.uint8)
