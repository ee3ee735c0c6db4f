# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether the mask of a defect can be what its maker meant."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# a mask with more grey values than this is no drawing; what is grey this far from what is marked comes from compression
DRAWN_LEVELS, EDGE = 16, 2
MAX_DIRT = 0.05


def problem_of_mask(mask: Image.Image, image_path: Path, *, resized: bool) -> str | None:
    """What is wrong with the mask of a defect, of which anomalib takes all that is not 0.

    Args:
        mask: The mask.
        image_path: The image that it is the mask of, which may be missing.
        resized: Whether both are resized before they are compared; else they need the same size.

    Returns:
        What is wrong and what to do about it; None if nothing is.
    """
    if image_path.is_file():
        with Image.open(image_path) as image:
            width, height = image.size
        # the longer side of a smaller mask may be rounded by a pixel
        alike = abs(mask.width * height - width * mask.height) <= max(width, height)
        if not (alike if resized else mask.size == (width, height)):
            return (
                f"the mask has {mask.width} x {mask.height} pixels, its image {width} x {height}; take the one that "
                f"belongs to the image, or resize it without interpolation"
            )
    grey = np.asarray(mask.convert("L"))
    marked = grey > 0
    if not marked.any():
        return "the mask marks nothing, but its image is among the defective ones; draw the defect, or move the image"
    edge = np.ones_like(marked)
    edge[1:-1, 1:-1] = False
    if marked[edge].all() and marked.mean() > 0.5 and not marked.all():
        return "the mask marks all but a part in the middle, as if inverted; the defect is white on black"
    if np.count_nonzero(np.bincount(grey.ravel(), minlength=256)) > DRAWN_LEVELS:
        solid = (grey > 127).astype(np.uint8)
        dirt = marked & (cv2.dilate(solid, np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)) == 0)
        if dirt.sum() > MAX_DIRT * solid.sum():
            return (
                "the mask holds greys around what it marks, as JPEG leaves them, and anomalib takes all that is not "
                "black for defective; save it as PNG with 0 and 255 alone"
            )
    return None
