# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The eight symmetries of the square, as augmentations."""

import torch
from torch import Tensor


def turn(values: Tensor, generator: torch.Generator) -> Tensor:
    """Turn and flip a batch ``(B, C, S, S)`` by one symmetry, drawn at random."""
    quarters, flip = torch.randint(4, (), generator=generator).item(), torch.randint(2, (), generator=generator).item()
    turned = values.rot90(int(quarters), (2, 3))
    return turned.flip(3) if flip else turned


def turn_each(values: Tensor, generator: torch.Generator) -> Tensor:
    """Turn and flip each item of a batch ``(B, C, S, S)`` by a symmetry of its own."""
    return torch.cat([turn(value, generator) for value in values.split(1)])
