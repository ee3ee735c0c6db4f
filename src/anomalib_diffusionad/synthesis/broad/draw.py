# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""One anomaly or several on an image, and a mask of what can be seen of them."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from .chip import chip
from .pixels import Array, Mask, in_channels, largest, mean, widened
from .scene import Blend, Scene
from .structural import structural
from .texture import texture
from .thin import thin
from .visibility import visible
from .weak import weak

KINDS: dict[str, Callable[[Array, Scene, np.random.Generator], Blend]] = {
    "texture": texture,
    "thin": thin,
    "weak": weak,
    "structural": structural,
    "chip": chip,
}
SHARES = {"texture": 0.34, "thin": 0.18, "weak": 0.14, "structural": 0.22, "chip": 0.12}
# the probability of a further anomaly on the same image
FURTHER = 0.6
ATTEMPTS = 6
COLOURLESS = 0.4
# of an anomaly's largest weight; where it is less, its edge fades out
EDGE = 0.25
# an edge fades out within this many pixels of the mask, outside of which nothing changes
FADE = 3
LEAST_CHANGE = 0.02
LEAST_PIXELS = 3


class Drawn(NamedTuple):
    """An anomalous image.

    Attributes:
        image: Float32 ``(S, S, 3)`` in [0, 1].
        mask: Where a change can be seen, bool ``(S, S)``; may be empty.
        shape: Where anomalies were put, bool ``(S, S)``.
        appearance: What was blended in there, and the image elsewhere, ``(S, S, 3)`` in [0, 1].
        weight: The largest weight of what was blended in.
        kinds: Kinds of the anomalies.
    """

    image: Array
    mask: Mask
    shape: Mask
    appearance: Array
    weight: float
    kinds: tuple[str, ...]


def draw_anomalies(scene: Scene, rng: np.random.Generator) -> Drawn:
    """Put anomalies on an image: one, and with a probability of 0.6 each time a further one.

    What cannot be seen is not put there; another one is tried in its place, six in all. Hence an image of which
    anomalies can seldom be seen may stay normal.

    Args:
        scene: The image and what anomalies may be made of.
        rng: Source of randomness.
    """
    nowhere = np.zeros(scene.image.shape[:2], dtype=bool)
    drawn = Drawn(scene.image, nowhere, nowhere, scene.image, 0.0, ())
    names, shares = list(SHARES), np.cumsum(list(SHARES.values()))
    for _ in range(ATTEMPTS):
        kind = names[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
        further = add(drawn, kind, scene, rng)
        if further is None:
            continue
        drawn = further
        if rng.random() >= FURTHER:
            break
    return drawn


def add(drawn: Drawn, kind: str, scene: Scene, rng: np.random.Generator) -> Drawn | None:
    """Put one more anomaly on an image; None if it could not be seen."""
    image = drawn.image
    other, weight = KINDS[kind](image, scene, rng)
    strongest = float(weight.max())
    change = other - image
    if scene.is_grey or rng.random() < COLOURLESS:  # as most defects are
        change = mean(change)
    shape = weight > EDGE * strongest
    changed = np.clip(image + in_channels(weight) * change, 0, 1)
    new = visible(kind, changed - scene.image, shape & _changes(changed, scene), scene.roughness)
    if new.sum() < LEAST_PIXELS:
        return None
    near = widened(new, FADE)
    changed = np.where(in_channels(near), changed, image)
    # what lies below a further anomaly may have gone
    mask = new | (drawn.mask & _changes(changed, scene))
    appearance = np.where(in_channels(shape & near), np.clip(image + change, 0, 1), drawn.appearance)
    return Drawn(changed, mask, drawn.shape | shape, appearance, max(drawn.weight, strongest), (*drawn.kinds, kind))


def _changes(image: Array, scene: Scene) -> Mask:
    """Where an image differs from the normal one, bool ``(S, S)``."""
    return cv2.blur(largest(image - scene.image), (3, 3)) > LEAST_CHANGE
