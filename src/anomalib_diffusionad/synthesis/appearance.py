# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Appearance of synthetic anomalies: three random operations of ten, and patch shuffling (figure 5, A).

The operations and their ranges are the original's. Only the pixels that an anomaly shows are worked on, a tenth of an
image or less. Shuffling and rotation say which pixel of the source each of them shows, and sharpness looks at the
pixels around that; the colour operations follow in random order. Parameters are drawn on the host, as plain numbers.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomalib_diffusionad.hardware import to_device

NUM_OPERATIONS = 3
GRID = 8
LEVELS = 256
# the histogram of an image is that of this many pixels along each axis
HISTOGRAM_SIZE = 32

# a number between two others
Uniform = Callable[[float, float], float]
# (colours (3, M) in [0, 1], sample of the image's colours (3, 1024), uniform) -> colours (3, M)
ColourOperation = Callable[[Tensor, Tensor, Uniform], Tensor]


def _gamma(colour: Tensor, _sample: Tensor, uniform: Uniform) -> Tensor:
    return torch.stack([channel ** uniform(0.5, 2.0) for channel in colour])


def _brightness(colour: Tensor, _sample: Tensor, uniform: Uniform) -> Tensor:
    return colour * uniform(0.8, 1.2) + uniform(-30 / 255, 30 / 255)


def _solarize(colour: Tensor, _sample: Tensor, uniform: Uniform) -> Tensor:
    return torch.where(colour >= uniform(32 / 255, 128 / 255), 1 - colour, colour)


def _posterize(colour: Tensor, _sample: Tensor, uniform: Uniform) -> Tensor:
    step = 2 ** round(uniform(0, 7))
    return ((colour * 255).round() / step).floor() * step / 255


def _invert(colour: Tensor, _sample: Tensor, _uniform: Uniform) -> Tensor:
    return 1 - colour


def _autocontrast(colour: Tensor, sample: Tensor, _uniform: Uniform) -> Tensor:
    low, high = sample.aminmax(dim=1, keepdim=True)
    return torch.where(high > low, (colour - low) / (high - low).clamp(min=1e-6), colour)


def _equalize(colour: Tensor, sample: Tensor, _uniform: Uniform) -> Tensor:
    level = (sample * 255).round().long()
    # as in Pillow: what is as bright as the brightest level does not count, and one level alone stays as it is
    counted = level < level.amax(dim=1, keepdim=True)
    histogram = torch.zeros(3, LEVELS, device=colour.device).scatter_add(1, level, counted.float())
    below = F.pad(histogram.cumsum(dim=1), (1, -1))
    total = counted.sum(dim=1, keepdim=True)
    curve = (below / total.clamp(min=1)).gather(1, (colour * 255).round().long())
    return torch.where(total > 0, curve, colour)


def _hue_and_saturation(colour: Tensor, _sample: Tensor, uniform: Uniform) -> Tensor:
    """Turn and stretch the colour plane about the grey axis: a linear form of adding to hue and saturation."""
    angle, stretch = 2 * math.pi * uniform(-50 / 255, 50 / 255), 1 + uniform(-50 / 128, 50 / 128)
    along, across = stretch * math.cos(angle), stretch * math.sin(angle) / 3**0.5
    grey = colour.mean(dim=0)
    red, green, blue = colour
    turned = torch.stack([blue - green, red - blue, green - red])
    return grey + along * (colour - grey) + across * turned


COLOUR_OPERATIONS: tuple[ColourOperation, ...] = (
    _gamma,
    _brightness,
    _solarize,
    _posterize,
    _invert,
    _autocontrast,
    _equalize,
    _hue_and_saturation,
)
# the numbers of the other two
SHARPNESS, ROTATION = len(COLOUR_OPERATIONS), len(COLOUR_OPERATIONS) + 1


def anomalous_appearance(
    source: Tensor,
    position: Tensor,
    *,
    shuffle: bool,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Apply three different random operations to an image, then shuffle its 8 x 8 patches if wanted.

    Args:
        source: Texture or normal image, uint8, or floats, clamped to [0, 1], ``(3, H, W)``; H and W are multiples of 8
            and at least 32.
        position: Pixels wanted, int64 indices ``(K,)`` into the flattened image.
        shuffle: Whether to shuffle.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        Colours of these pixels, float32 ``(3, K)`` in [0, 1].
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    _, height, width = source.shape
    operations = _choose(generator)
    sample = _evenly_spaced(height, width, source.device)
    position = torch.cat([sample, position])
    y, x = position // width, position % width
    if shuffle:
        order = to_device(torch.randperm(GRID * GRID, generator=generator), source.device)
        y, x = _unshuffle(y, x, order, height // GRID, width // GRID)
    inside = None
    if ROTATION in operations:
        y, x = _rotate(y - (height - 1) / 2, x - (width - 1) / 2, uniform(-math.pi / 4, math.pi / 4))
        y, x = y + (height - 1) // 2, x + (width - 1) // 2
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    colour = _pixels(source, y, x)
    if SHARPNESS in operations:
        colour = _sharpen(source, y, x, colour, uniform(0.1, 1.9))
    if inside is not None:
        colour = colour * inside
    for operation in operations:
        if operation < len(COLOUR_OPERATIONS):
            colour = COLOUR_OPERATIONS[operation](colour, colour[:, : len(sample)], uniform).clamp_(0, 1)
    return colour[:, len(sample) :]


def _choose(generator: torch.Generator | None) -> list[int]:
    """Numbers of three different operations, in random order."""
    return torch.randperm(ROTATION + 1, generator=generator)[:NUM_OPERATIONS].tolist()


def _evenly_spaced(height: int, width: int, device: torch.device) -> Tensor:
    """Positions of the pixels that stand for the whole image in its histogram."""
    y, x = (torch.arange(HISTOGRAM_SIZE, device=device) * (side // HISTOGRAM_SIZE) for side in (height, width))
    return (y[:, None] * width + x).flatten()


def _unshuffle(y: Tensor, x: Tensor, order: Tensor, patch_height: int, patch_width: int) -> tuple[Tensor, Tensor]:
    """Which pixels those of an image show whose patches are ``order``, ``(64,)``."""
    shown = order[y // patch_height * GRID + x // patch_width]
    return shown // GRID * patch_height + y % patch_height, shown % GRID * patch_width + x % patch_width


def _rotate(y: Tensor, x: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Which pixels, the nearest, those of an image show that is rotated about the origin."""
    cos, sin = math.cos(angle), math.sin(angle)
    return (cos * y + sin * x).ceil().long(), (cos * x - sin * y).ceil().long()


def _pixels(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Colours ``(3, M)`` in [0, 1] of pixels of ``(3, H, W)``; those outside are taken from the edge."""
    _, height, width = image.shape
    position = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    pixels = image.flatten(1).index_select(1, position)
    return pixels.clamp(0, 1) if image.is_floating_point() else pixels / 255


def _sharpen(image: Tensor, y: Tensor, x: Tensor, colour: Tensor, factor: float) -> Tensor:
    """Away from Pillow's smoothed image, or towards it; the smoothing counts the centre five times."""
    smooth = 4 * colour
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            smooth += _pixels(image, y + down, x + right)
    return torch.lerp(smooth / 13, colour, factor).clamp_(0, 1)
