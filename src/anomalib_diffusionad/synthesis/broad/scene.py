# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What an anomaly is drawn on, and what it may be made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .pixels import Array, Mask, mean
from .visibility import Roughness, roughness

# share of an image's pixels, the steepest, that count as outlines
OUTLINES = 1 / 12
# half a level: resizing may round the channels of a grey image differently
GREY_SPREAD = 0.5 / 255


class Blend(NamedTuple):
    """What a kind gives: ``image + weight * (other - image)`` is the anomalous image.

    Attributes:
        other: Float32 ``(S, S, 3)``, or what broadcasts to it.
        weight: Float32 ``(S, S)`` in [0, 1].
    """

    other: Array
    weight: Array


@dataclass(frozen=True)
class Scene:
    """A normal image and what surrounds it.

    Attributes:
        image: Float32 ``(S, S, 3)`` in [0, 1].
        foreground: Where half of the anomalies lie; the others lie anywhere. Bool ``(S, S)``.
        others: Normal images of the same kind, of the same form.
        texture: Draws a foreign texture of the same form; None where there is none.
        self_augmentation: Share of the textured anomalies that are made from the image itself.
    """

    image: Array
    foreground: Mask
    others: Sequence[Array] = ()
    texture: Callable[[], Array] | None = None
    self_augmentation: float = 0.5

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.image.shape[0]

    @property
    def scale(self) -> float:
        """Largest sizes in pixels are meant for 128 pixels and grow with the image; the smallest are what they are."""
        return self.size / 128

    @cached_property
    def is_grey(self) -> bool:
        """Whether the image has no colour, so that its anomalies must have none."""
        red, green, blue = np.moveaxis(self.image, 2, 0)
        return bool(max(np.abs(red - green).max(), np.abs(green - blue).max()) < GREY_SPREAD)

    @cached_property
    def spots(self) -> NDArray[np.int64]:
        """Flat positions of the foreground."""
        return np.flatnonzero(self.foreground)

    @cached_property
    def outlines(self) -> NDArray[np.int64]:
        """Flat positions of the steepest pixels."""
        smooth = cv2.GaussianBlur(mean(self.image)[..., 0], (0, 0), 1)
        steepness = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)).ravel()
        count = max(1, round(OUTLINES * steepness.size))
        return np.argpartition(steepness, -count)[-count:]

    @cached_property
    def roughness(self) -> Roughness:
        """How much the image changes from place to place by nature."""
        return roughness(self.image)
