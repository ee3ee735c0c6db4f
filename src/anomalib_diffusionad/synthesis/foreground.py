# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Where on an image a synthetic anomaly may lie (figure 5, F)."""

import torch
from torch import Tensor


def whole_image(image: Tensor) -> Tensor:
    """The whole of each image: bool ``(N, 1, H, W)`` for images ``(N, 3, H, W)``."""
    return torch.ones_like(image[:, :1], dtype=torch.bool)


def random_part(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A random rectangle of each image, from a third of each side to all of it, the paper's way for textures.

    Args:
        image: Images ``(N, 3, H, W)``.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        bool ``(N, 1, H, W)``.
    """
    count, _, height, width = image.shape
    side = torch.rand(count, 2, generator=generator) * (2 / 3) + 1 / 3
    start = torch.rand(count, 2, generator=generator) * (1 - side)
    low, high = (value.to(image.device, non_blocking=True)[:, :, None] for value in (start, start + side))
    y = (torch.arange(height, device=image.device) + 0.5) / height
    x = (torch.arange(width, device=image.device) + 0.5) / width
    rows = (y >= low[:, 0]) & (y < high[:, 0])
    columns = (x >= low[:, 1]) & (x < high[:, 1])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
