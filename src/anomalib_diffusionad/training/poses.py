# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether normal images lie alike, or may as well be turned."""

import torch
from torch import Tensor

from .symmetries import turn_each

LEAST_IMAGES = 8
MOST_AXES = 24
# turned images are this many times as far from the axes where all images lie alike
ALIGNED = 1.5
# turns of each image
DRAWS = 4


def aligned(images: Tensor) -> bool:
    """Whether images lie alike: whether the axes of some know others far better as they are than turned or flipped.

    Args:
        images: Normal images ``(N, 3, H, W)`` in [0, 1].
    """
    if len(images) < LEAST_IMAGES:
        return True
    generator = torch.Generator().manual_seed(0)
    upright = turned = 0.0
    for start in (0, 1):
        known, others = images[start::2], images[1 - start :: 2]
        mean, axes = _principal_axes(known)
        upright += _distance(others, mean, axes)
        turned += sum(_distance(turn_each(others, generator), mean, axes) for _ in range(DRAWS)) / DRAWS
    return turned > ALIGNED * upright


def _principal_axes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(P,)`` and principal axes ``(K, P)`` of images of P values.

    There are an eighth as many axes as images, at most: more would know these images, and not others of their kind.
    """
    flat = images.flatten(1)
    mean = flat.mean(dim=0)
    centred = flat - mean
    used = max(1, min(MOST_AXES, len(flat) // 8))
    # on the host, in double precision, which not every device has
    values, vectors = torch.linalg.eigh((centred @ centred.T).cpu().double())
    scale = values[-used:].clamp(min=1e-12).sqrt()
    return mean, (vectors[:, -used:] / scale).T.to(flat) @ centred


def _distance(images: Tensor, mean: Tensor, axes: Tensor) -> float:
    """How far images are from the axes, root mean square."""
    centred = images.flatten(1) - mean
    return float((centred - centred @ axes.T @ axes).square().mean().sqrt())
