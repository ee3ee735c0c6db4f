# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Appearance of synthetic anomalies: three random operations of ten, and patch shuffling (figure 5, A).

The operations and their ranges are the original's. Seven of the ten send each colour channel through a curve; their
curves are composed as tables of 256 values, and the pixels are looked up once, at the end or before an operation that
needs them. Parameters are drawn on the host; pixels are worked on where they lie, all images that got the same
operation together.
"""

from collections.abc import Callable

import kornia
import torch
from torch import Tensor

from .shapes import rotate

NUM_OPERATIONS = 3
GRID = 8
LEVELS = 256

# draws one number an image (and channel) from a range
Uniform = Callable[..., Tensor]
# (curves (n, 3, 256) in [0, 1], histograms (n, 3, 256), uniform) -> curves
CurveOperation = Callable[[Tensor, Tensor, Uniform], Tensor]
# (images (n, 3, H, W) in [0, 1], uniform) -> images
PixelOperation = Callable[[Tensor, Uniform], Tensor]


def _gamma(curve: Tensor, _histogram: Tensor, uniform: Uniform) -> Tensor:
    return curve ** uniform(0.5, 2.0, channels=3)


def _brightness(curve: Tensor, _histogram: Tensor, uniform: Uniform) -> Tensor:
    return curve * uniform(0.8, 1.2) + uniform(-30 / 255, 30 / 255)


def _solarize(curve: Tensor, _histogram: Tensor, uniform: Uniform) -> Tensor:
    return torch.where(curve >= uniform(32 / 255, 128 / 255), 1 - curve, curve)


def _posterize(curve: Tensor, _histogram: Tensor, uniform: Uniform) -> Tensor:
    step = 2.0 ** uniform(0, 7).round()
    return (curve * 255 / step).floor() * step / 255


def _invert(curve: Tensor, _histogram: Tensor, _uniform: Uniform) -> Tensor:
    return 1 - curve


def _autocontrast(curve: Tensor, histogram: Tensor, _uniform: Uniform) -> Tensor:
    present = histogram > 0
    low = torch.where(present, curve, torch.inf).amin(dim=2, keepdim=True)
    high = torch.where(present, curve, -torch.inf).amax(dim=2, keepdim=True)
    return torch.where(high > low, (curve - low) / (high - low).clamp(min=1e-6), curve)


def _equalize(curve: Tensor, histogram: Tensor, _uniform: Uniform) -> Tensor:
    level = (curve * 255).round().long()
    current = torch.zeros_like(histogram).scatter_add(2, level, histogram)
    below = current.cumsum(dim=2) - current
    # as in Pillow: the brightest level there is does not count, and a channel of one level stays as it is
    highest = ((current > 0) * torch.arange(LEVELS, device=curve.device)).amax(dim=2, keepdim=True)
    brightest = current.gather(2, highest)
    step = ((current.sum(dim=2, keepdim=True) - brightest) / 255).floor()
    table = ((below + (step / 2).floor()) / step.clamp(min=1)).floor().clamp(0, 255) / 255
    return torch.where(step > 0, table.gather(2, level), curve)


def _sharpness(image: Tensor, uniform: Uniform) -> Tensor:
    return kornia.enhance.sharpness(image, uniform(0.1, 1.9).flatten())


def _hue_and_saturation(image: Tensor, uniform: Uniform) -> Tensor:
    """Turn and stretch the colour plane about the grey axis: a linear form of adding to hue and saturation."""
    angle, stretch = uniform(-50 / 255, 50 / 255).flatten() * 2 * torch.pi, uniform(-50 / 128, 50 / 128).flatten() + 1
    cos, sin = stretch * angle.cos(), stretch * angle.sin()
    identity = torch.eye(3, device=image.device)
    grey = torch.full_like(identity, 1 / 3)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=image.device) / 3**0.5
    turn = grey + cos[:, None, None] * (identity - grey) + sin[:, None, None] * cross
    return (turn @ image.flatten(2)).view_as(image)


def _rotate(image: Tensor, uniform: Uniform) -> Tensor:
    return rotate(image, uniform(-45, 45).flatten().deg2rad())


CURVE_OPERATIONS: tuple[CurveOperation, ...] = (
    _gamma,
    _brightness,
    _solarize,
    _posterize,
    _invert,
    _autocontrast,
    _equalize,
)
PIXEL_OPERATIONS: tuple[PixelOperation, ...] = (_sharpness, _hue_and_saturation, _rotate)


def augment(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Apply three different random operations to each image.

    Args:
        image: uint8 ``(N, 3, H, W)``.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        New images, float32 ``(N, 3, H, W)`` in [0, 1].
    """
    total = len(CURVE_OPERATIONS) + len(PIXEL_OPERATIONS)
    chosen = torch.rand(len(image), total, generator=generator).argsort(dim=1)[:, :NUM_OPERATIONS]
    image = image.clone()
    identity = torch.linspace(0, 1, LEVELS, device=image.device)
    curve = identity.expand(len(image), 3, LEVELS).clone()
    for number in torch.randperm(total, generator=generator).tolist():
        rows = (chosen == number).any(dim=1).nonzero().flatten()
        if len(rows) == 0:
            continue
        uniform = _uniform(len(rows), image.device, generator)
        rows = rows.to(image.device, non_blocking=True)
        if number < len(CURVE_OPERATIONS):
            operation = CURVE_OPERATIONS[number]
            histogram = _histogram(image[rows]) if operation in {_autocontrast, _equalize} else curve[rows]
            curve[rows] = operation(curve[rows], histogram, uniform).clamp(0, 1)
        else:
            pixels = PIXEL_OPERATIONS[number - len(CURVE_OPERATIONS)](_look_up(image[rows], curve[rows]), uniform)
            image[rows] = (pixels.clamp(0, 1) * 255).round().byte()
            curve[rows] = identity
    return _look_up(image, curve)


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


def _look_up(image: Tensor, curve: Tensor) -> Tensor:
    """Send each channel of uint8 ``(n, 3, H, W)`` through its curve ``(n, 3, 256)``."""
    offset = torch.arange(image.shape[0] * 3, device=image.device, dtype=torch.int32) * LEVELS
    index = image.int() + offset.view(-1, 3, 1, 1)
    return curve.flatten().index_select(0, index.flatten()).view(image.shape)


def _histogram(image: Tensor) -> Tensor:
    """Count the levels of each channel of uint8 ``(n, 3, H, W)``: float32 ``(n, 3, 256)``."""
    offset = torch.arange(image.shape[0] * 3, device=image.device) * LEVELS
    index = image.long() + offset.view(-1, 3, 1, 1)
    counts = torch.zeros(len(offset) * LEVELS, device=image.device)
    return counts.index_add(0, index.flatten(), torch.ones((), device=image.device).expand(index.numel())).view(
        -1, 3, LEVELS
    )


def _uniform(count: int, device: torch.device, generator: torch.Generator | None) -> Uniform:
    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        # three dimensions for curves; pixel operations flatten what they need
        value = torch.rand(count, channels, 1, generator=generator) * (high - low) + low
        return value.to(device, non_blocking=True)

    return draw
