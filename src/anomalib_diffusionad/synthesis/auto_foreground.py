# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The object on a plain background, found from the image alone: colours unlike those along the image's edge.

No network and no download. Meant for one or several objects in front of a background of any brightness, also a finely
textured one, that can be seen along most of the image's edge. Where the result does not look like such an object, no
mask is given rather than a wrong one.
"""

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

# masks are found at this size: finer detail only adds noise
WORKING_SIZE = 256
RING = 5
MAX_COLOURS = 512
# a colour belongs to the background if this share of the edge is like it: a crumb at the edge does not count
EDGE_SHARE = 0.02
MIN_AREA, MAX_AREA = 0.02, 0.9
MAX_ON_EDGE = 0.5
MIN_COMPONENT, MIN_KEPT = 0.1, 0.8
# along 80 % of its outline an object is at least this steep, in Lab units a pixel and relative to the rest of the image
MIN_STEEPNESS, MIN_RELATIVE_STEEPNESS = 1.5, 2.5


def find_object(image: np.ndarray) -> np.ndarray | None:
    """Find the object or objects of an image.

    Args:
        image: RGB, uint8 ``(H, W, 3)``.

    Returns:
        bool ``(H, W)``, or None where there is no clear object: a texture, an object that fills the image, too many
        pieces or a blurred outline.
    """
    height, width = image.shape[:2]
    scale = WORKING_SIZE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.5)
    ring = np.ones(lab.shape[:2], dtype=bool)
    ring[RING:-RING, RING:-RING] = False

    rough = _unlike(lab, lab[ring])
    mask = _whole_pieces(rough)
    if not _is_clear(mask, rough, ring, lab):
        return None
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _unlike(lab: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Pixels of ``lab`` ``(H, W, 3)`` that are far from all colours ``background`` ``(N, 3)``: bool ``(H, W)``."""
    step = -(-len(background) // MAX_COLOURS)
    colours = background[::step]
    neighbour = max(1, round(len(colours) * EDGE_SHARE))
    distance, _ = KDTree(colours).query(lab.reshape(-1, 3), k=[neighbour])
    # Otsu's method wants bytes; Lab distances reach 127 or so
    levels = (2 * distance.reshape(lab.shape[:2])).clip(0, 255).astype(np.uint8)
    _, mask = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return mask > 0


def _whole_pieces(rough: np.ndarray) -> np.ndarray:
    """Close gaps, fill holes and keep the large components of a mask, bool ``(H, W)``."""
    mask = ndimage.binary_fill_holes(cv2.morphologyEx(rough.astype(np.uint8), cv2.MORPH_CLOSE, _disk(13)))
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, _disk(5))
    # Otsu's threshold lies half-way up a blurred rim, which is part of the object
    mask = cv2.dilate(mask, _disk(3))
    components, _ = ndimage.label(mask)
    area = np.bincount(components.ravel())
    area[0] = 0
    return (area >= max(1, MIN_COMPONENT * area.max()))[components]


def _is_clear(mask: np.ndarray, rough: np.ndarray, ring: np.ndarray, lab: np.ndarray) -> bool:
    """Whether a mask, bool ``(H, W)``, looks like objects in front of a background."""
    # an object covers less of the edge than of the image; a blotch of a texture or a shadow in a corner may not
    if not MIN_AREA <= mask.mean() <= MAX_AREA or mask[ring].mean() > min(MAX_ON_EDGE, mask.mean()):
        return False
    if (rough & mask).sum() < MIN_KEPT * rough.sum():
        return False
    # much smoothing, so that the grain of a background does not hide a weak outline
    gradient = np.linalg.norm(np.gradient(cv2.GaussianBlur(lab, (0, 0), 3), axis=(0, 1)), axis=(0, 3))
    gradient = ndimage.maximum_filter(gradient, 7)
    outline = mask & ~ndimage.binary_erosion(mask, border_value=1)
    steepness = np.percentile(gradient[outline], 20)
    return bool(steepness >= max(MIN_STEEPNESS, MIN_RELATIVE_STEEPNESS * np.median(gradient[~outline])))


def _disk(diameter: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))
