# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Turns and flips as augmentations."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomalib_diffusionad.hardware import to_device

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
    # Apple's GPUs have no bicubic sampling in PyTorch 2.10
    device = torch.device("cpu") if value.device.type == "mps" else value.device
    # whatever the precision of the training: places in 16 bits are off by parts of a pixel
    with torch.autocast(device.type, enabled=False):
        there = value.to(device).float()
        grid = F.affine_grid(to_device(matrix, device), list(there.shape), align_corners=False)
        turned = F.grid_sample(there, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
        return turned.clamp(0, 1).to(value.device)
