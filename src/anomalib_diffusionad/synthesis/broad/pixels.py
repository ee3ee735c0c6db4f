# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Arithmetic on pixels that numpy does slowly along an axis of three."""

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


def largest(change: Array) -> Array:
    """The largest change of a pixel's channels: ``(S, S)`` of ``(S, S, 3)`` or ``(S, S, 1)``."""
    change = np.abs(change)
    if change.shape[2] == 1:
        return change[..., 0]
    return np.maximum(np.maximum(change[..., 0], change[..., 1]), change[..., 2])


def mean(image: Array) -> Array:
    """Mean of the channels, ``(S, S, 1)``."""
    return ((image[..., 0] + image[..., 1] + image[..., 2]) * np.float32(1 / 3))[..., None]


def blurred(values: Array, sigma: float) -> Array:
    """A Gaussian blur; sigma 0 leaves the values as they are."""
    return cast("Array", cv2.GaussianBlur(values, (0, 0), sigma)) if sigma else values


def widened(mask: Mask, pixels: int) -> Mask:
    """A mask and all that is at most about this many pixels away from it."""
    return cv2.dilate(mask.view(np.uint8), _disk(pixels)).view(bool)


def closed(mask: Mask, pixels: int) -> Mask:
    """A mask whose gaps and holes are filled that are less than about twice this many pixels wide."""
    return cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_CLOSE, _disk(pixels)).view(bool)


def in_channels(values: NDArray[Any]) -> NDArray[Any]:
    """Weights or a mask ``(S, S)`` for three channels, ``(S, S, 3)``: broadcasting is several times as slow."""
    merged = cv2.merge([values.view(np.uint8) if values.dtype == bool else values] * 3)
    return merged.view(bool) if values.dtype == bool else merged


def _disk(radius: int) -> NDArray[np.uint8]:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)).astype(np.uint8)
