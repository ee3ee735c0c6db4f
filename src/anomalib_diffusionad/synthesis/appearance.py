# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Appearance of synthetic anomalies: three random operations of ten, and patch shuffling (figure 5, A).

The operations and their ranges are the original's. Parameters are drawn for each image on the host; the pixels are
worked on where they lie, all images that got the same operation together.
"""

from collections.abc import Callable

import kornia
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

NUM_OPERATIONS = 3
GRID = 8

# each takes images (n, 3, H, W) in [0, 1] and a source of uniform numbers, and returns images
Uniform = Callable[..., Tensor]
Operation = Callable[[Tensor, Uniform], Tensor]


def _gamma(image: Tensor, uniform: Uniform) -> Tensor:
    return image ** uniform(0.5, 2.0, channels=3)


def _brightness(image: Tensor, uniform: Uniform) -> Tensor:
    return image * uniform(0.8, 1.2) + uniform(-30 / 255, 30 / 255)


def _sharpness(image: Tensor, uniform: Uniform) -> Tensor:
    return kornia.enhance.sharpness(image, uniform(0.1, 1.9).flatten())


def _hue_and_saturation(image: Tensor, uniform: Uniform) -> Tensor:
    hue, saturation, value = kornia.color.rgb_to_hsv(image).unbind(1)
    hue = (hue + uniform(-50 / 255, 50 / 255)[:, 0] * torch.pi) % (2 * torch.pi)
    saturation = (saturation + uniform(-50 / 255, 50 / 255)[:, 0]).clamp(0, 1)
    return kornia.color.hsv_to_rgb(torch.stack([hue, saturation, value], dim=1))


def _solarize(image: Tensor, uniform: Uniform) -> Tensor:
    return torch.where(image >= uniform(32 / 255, 128 / 255), 1 - image, image)


def _posterize(image: Tensor, uniform: Uniform) -> Tensor:
    step = 2.0 ** uniform(0, 7).round()
    return ((image * 255 / step).floor() * step) / 255


def _invert(image: Tensor, _uniform: Uniform) -> Tensor:
    return 1 - image


def _autocontrast(image: Tensor, _uniform: Uniform) -> Tensor:
    return tv.autocontrast(image)


def _equalize(image: Tensor, _uniform: Uniform) -> Tensor:
    return tv.equalize((image * 255).round().byte()).float() / 255


def _rotate(image: Tensor, uniform: Uniform) -> Tensor:
    return kornia.geometry.rotate(image, uniform(-45, 45).flatten(), padding_mode="reflection")


OPERATIONS: tuple[Operation, ...] = (
    _gamma,
    _brightness,
    _sharpness,
    _hue_and_saturation,
    _solarize,
    _posterize,
    _invert,
    _autocontrast,
    _equalize,
    _rotate,
)


def augment(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Apply three different random operations to each image.

    Args:
        image: ``(N, 3, H, W)`` in [0, 1].
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        New images, ``(N, 3, H, W)`` in [0, 1].
    """
    chosen = torch.rand(image.shape[0], len(OPERATIONS), generator=generator).argsort(dim=1)[:, :NUM_OPERATIONS]
    result = image.clone()
    for number in torch.randperm(len(OPERATIONS), generator=generator).tolist():
        rows = (chosen == number).any(dim=1).nonzero().flatten()
        if len(rows):
            uniform = _uniform(len(rows), image.device, generator)
            rows = rows.to(image.device, non_blocking=True)
            result[rows] = OPERATIONS[number](result[rows], uniform).clamp(0, 1)
    return result


def shuffle_patches(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Cut each image into an 8 x 8 grid and shuffle the patches.

    Args:
        image: ``(N, C, H, W)``; H and W are multiples of 8.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        Images of the same shape.
    """
    count, channels, height, width = image.shape
    order = torch.rand(count, GRID * GRID, generator=generator).argsort(dim=1).to(image.device, non_blocking=True)
    patches = image.reshape(count, channels, GRID, height // GRID, GRID, width // GRID)
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    patches = patches[torch.arange(count, device=image.device)[:, None], order]
    return patches.unflatten(1, (GRID, GRID)).permute(0, 3, 1, 4, 2, 5).reshape(image.shape)


def _uniform(count: int, device: torch.device, generator: torch.Generator | None) -> Uniform:
    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        value = torch.rand(count, channels, 1, 1, generator=generator) * (high - low) + low
        return value.to(device, non_blocking=True)

    return draw
