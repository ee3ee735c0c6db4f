# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Turns and flips as augmentations."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

# share of the images that are turned by any angle
ANY_ANGLE = 0.5


def turn(values: Tensor, generator: torch.Generator) -> Tensor:
    """Turn and flip a batch ``(B, C, H, W)`` by one of the symmetries of its shape, drawn at random.

    A square has eight, another rectangle four.
    """
    quarters, flip = int(torch.randint(4, (), generator=generator)), torch.randint(2, (), generator=generator).item()
    square = values.shape[2] == values.shape[3]
    turned = values.rot90(quarters if square else 2 * (quarters % 2), (2, 3))
    return turned.flip(3) if flip else turned


def turn_each(values: Tensor, generator: torch.Generator) -> Tensor:
    """Turn and flip each item of a batch ``(B, C, H, W)`` in its own way, half of them by any angle.

    What comes in at the edges is mirrored.
    """
    return torch.cat([turn(_rotate(value, generator), generator) for value in values.split(1)])


def _rotate(value: Tensor, generator: torch.Generator) -> Tensor:
    """Turn ``(1, C, H, W)`` about its middle by up to an eighth of a circle, or leave it as it is."""
    draw = torch.rand(2, generator=generator).tolist()
    if draw[0] >= ANY_ANGLE:
        return value
    angle = (draw[1] - 0.5) * math.pi / 2
    cos, sin = math.cos(angle), math.sin(angle)
    aspect = value.shape[2] / value.shape[3]
    matrix = torch.tensor([[[cos, -sin * aspect, 0.0], [sin / aspect, cos, 0.0]]])
    # whatever the precision of the training: places in 16 bits are off by parts of a pixel
    with torch.autocast(value.device.type, enabled=False):
        value = value.float()
        grid = F.affine_grid(matrix.to(value.device, non_blocking=True), list(value.shape), align_corners=False)
        return F.grid_sample(value, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)
