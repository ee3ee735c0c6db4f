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
    """Turn and flip a batch ``(B, C, S, S)`` by one of the eight symmetries of the square, drawn at random."""
    quarters, flip = torch.randint(4, (), generator=generator).item(), torch.randint(2, (), generator=generator).item()
    turned = values.rot90(int(quarters), (2, 3))
    return turned.flip(3) if flip else turned


def turn_each(values: Tensor, generator: torch.Generator) -> Tensor:
    """Turn and flip each item of a batch ``(B, C, S, S)`` in its own way, half of them by any angle.

    What comes in at the edges is mirrored.
    """
    return torch.cat([turn(_rotate(value, generator), generator) for value in values.split(1)])


def _rotate(value: Tensor, generator: torch.Generator) -> Tensor:
    """Turn ``(1, C, S, S)`` about its middle by up to an eighth of a circle, or leave it as it is."""
    draw = torch.rand(2, generator=generator).tolist()
    if draw[0] >= ANY_ANGLE:
        return value
    angle = (draw[1] - 0.5) * math.pi / 2
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]], device=value.device)
    grid = F.affine_grid(matrix, list(value.shape), align_corners=False)
    return F.grid_sample(value, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)
