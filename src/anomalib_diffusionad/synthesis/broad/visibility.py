# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What of a change can be seen: to be taught the rest is to see ghosts.

A texture pasted on itself looks normal, and a stain that is weaker than the grain of a surface is not there. So a
change is compared with what the image does by nature: how much it differs from itself, moved by a few pixels.
"""

from typing import NamedTuple

import numpy as np

from .pixels import Array, Mask, blurred, closed, largest, widened

# sigmas at which a change is judged
FINE, COARSE = 1.5, 3.0
# a few pixels, so that what is compared is no longer the same thing, and different along both axes
MOVES = ((5, -4), (-7, 3))
# outlines are not roughness: a normal image is judged by the calmer quarter of its pixels, whose largest change of
# three channels is this share of the standard deviation
CALM, CALM_SHARE = 25, 0.47
LEAST_SHARE = 0.2
# what lies between two parts of one change, this many pixels from either, belongs to it
GAP = 3


class Roughness(NamedTuple):
    """How much a normal image differs from itself nearby: its pixels, and the image smoothed at two sigmas."""

    pixel: float
    fine: float
    coarse: float


def roughness(image: Array) -> Roughness:
    """Measure the roughness of an image, ``(S, S, 3)``."""
    found = []
    for move in MOVES:
        change = np.roll(image, move, (0, 1)) - image
        levels = (largest(blurred(change, sigma))[::2, ::2] for sigma in (0, FINE, COARSE))
        found.append([np.percentile(level, CALM) / CALM_SHARE for level in levels])
    return Roughness(*np.mean(found, axis=0).tolist())


def visible(kind: str, change: Array, mask: Mask, rough: Roughness) -> Mask:
    """What of an anomaly can be seen.

    Parts of images have to differ where they are smoothed. Lines are seen by their length and may be as weak as the
    grain.

    Args:
        kind: Kind of anomaly.
        change: Anomalous less normal image, ``(S, S, 3)``.
        mask: Where the anomaly lies, bool ``(S, S)``.
        rough: Roughness of the normal image.

    Returns:
        What is left of the mask; nothing where the anomaly cannot be seen.
    """
    nothing = np.zeros_like(mask)
    if not mask.any():
        return nothing
    if kind in {"structural", "chip"}:
        strong = largest(blurred(change, FINE)) > max(0.03, 3.5 * rough.fine)
        shown = mask & closed(widened(strong, 2), GAP)
        return shown if shown.sum() > LEAST_SHARE * mask.sum() else nothing
    if kind == "weak":
        stands_out = largest(blurred(change, COARSE))[mask].mean() > max(0.02, 1.2 * rough.coarse)
    else:
        stands_out = largest(change)[mask].mean() > max(0.025, 0.9 * rough.pixel)
    return mask if stands_out else nothing
