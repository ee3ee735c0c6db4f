# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Shapes of synthetic anomalies: thresholded Perlin noise, a batch at a time (figure 5, P and M)."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Combine = Literal["single", "union", "intersection"]
MAX_SCALE_EXPONENT = 5
THRESHOLD = 0.5
_LATTICE = 2**MAX_SCALE_EXPONENT + 1


class PerlinNoise(NamedTuple):
    """Parameters of a number of Perlin noise fields; ``...`` stands for any leading shape.

    Attributes:
        scale: Lattice cells along height and width, ``(..., 2)``.
        angle: Rotation about the centre in radians, ``(...)``.
        gradient: Direction of the gradient at each lattice point in radians, ``(..., 33 * 33)``.
    """

    scale: Tensor
    angle: Tensor
    gradient: Tensor

    @classmethod
    def draw(cls, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> "PerlinNoise":
        """Draw fields with 2^0 .. 2^5 cells an axis, rotated by up to 90 degrees either way."""
        exponent = torch.randint(0, MAX_SCALE_EXPONENT + 1, (*shape, 2), generator=generator)
        angle = (torch.rand(shape, generator=generator) - 0.5) * torch.pi
        gradient = torch.rand((*shape, _LATTICE**2), generator=generator) * (2 * torch.pi)
        # drawn on the host and moved without waiting, so that a seed means the same on every device
        drawn = (2.0**exponent, angle, gradient)
        return cls(*(value.to(device, non_blocking=True) for value in drawn))

    def select(self, index: Tensor) -> "PerlinNoise":
        """Keep, along the second dimension, the field that ``index`` ``(N,)`` names for each of the N rows."""
        rows = torch.arange(index.shape[0], device=index.device)
        return PerlinNoise(*(value[rows, index] for value in self))

    def evaluate(self, size: int, stride: int = 1) -> Tensor:
        """Sample the fields on every ``stride``-th pixel of a square image.

        Rotation turns the sampling points, not a picture of the noise, so nothing is interpolated twice. Points that
        the rotation brings outside the original square are 0, as in a picture rotated onto black.

        Args:
            size: Height and width of the image in pixels.
            stride: Distance of the samples in pixels.

        Returns:
            Noise of shape ``(..., ceil(size / stride), ceil(size / stride))``, roughly in [-1, 1].
        """
        centre = (size - 1) / 2
        line = (torch.arange(0, size, stride, device=self.angle.device) - centre) / size
        cos, sin = self.angle.cos()[..., None, None], self.angle.sin()[..., None, None]
        y = cos * line[:, None] - sin * line[None, :] + centre / size
        x = sin * line[:, None] + cos * line[None, :] + centre / size
        inside = (y >= 0) & (y < 1) & (x >= 0) & (x < 1)
        scale = self.scale[..., None, None, :]
        y, x = y.clamp(0, 1) * scale[..., 0], x.clamp(0, 1) * scale[..., 1]
        row, column = y.floor().clamp(max=_LATTICE - 2), x.floor().clamp(max=_LATTICE - 2)
        y, x = y - row, x - column
        corner = (row * _LATTICE + column).long().flatten(-2)

        sin_gradient, cos_gradient = self.gradient.sin(), self.gradient.cos()

        def dot(down: int, right: int) -> Tensor:
            index = corner + (down * _LATTICE + right)
            gradient_y = sin_gradient.gather(-1, index).view_as(y)
            gradient_x = cos_gradient.gather(-1, index).view_as(x)
            return gradient_y * (y - down) + gradient_x * (x - right)

        fade_y, fade_x = _fade(y), _fade(x)
        top = torch.lerp(dot(0, 0), dot(0, 1), fade_x)
        bottom = torch.lerp(dot(1, 0), dot(1, 1), fade_x)
        return torch.lerp(top, bottom, fade_y) * 2**0.5 * inside


def perlin_masks(
    foreground: Tensor,
    combine: Combine = "single",
    candidates: int = 16,
    stride: int = 4,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one anomaly mask an image inside its foreground (section 4.4).

    The original draws again, up to 50 times, while the product of shape and foreground is empty. Here several
    candidates are looked at together on a coarse grid and the first that is not empty is taken, which needs no
    round trip to the host.

    Args:
        foreground: Where anomalies may lie, bool ``(N, 1, S, S)``.
        combine: ``"single"`` (the paper's), or ``"union"`` or ``"intersection"`` of two shapes.
        candidates: Shapes tried for each image.
        stride: Distance of the coarse grid's points in pixels.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        Masks, bool ``(N, 1, S, S)``. One stays empty only where all candidates miss the foreground.

    Raises:
        ValueError: If ``combine`` is unknown.
    """
    if combine not in get_args(Combine):
        msg = f"combine must be one of {', '.join(get_args(Combine))}, got {combine!r}."
        raise ValueError(msg)
    count, size = foreground.shape[0], foreground.shape[-1]
    layers = 1 if combine == "single" else 2
    noises = [PerlinNoise.draw((count, candidates), foreground.device, generator) for _ in range(layers)]

    def shape(noises: list[PerlinNoise], stride: int) -> Tensor:
        mask = noises[0].evaluate(size, stride) > THRESHOLD
        for noise in noises[1:]:
            other = noise.evaluate(size, stride) > THRESHOLD
            mask = mask | other if combine == "union" else mask & other
        return mask

    coarse = shape(noises, stride) & foreground[:, :, ::stride, ::stride]
    first = coarse.flatten(2).any(dim=2).int().argmax(dim=1)
    return shape([noise.select(first) for noise in noises], 1)[:, None] & foreground


def _fade(t: Tensor) -> Tensor:
    return t * t * t * (t * (t * 6 - 15) + 10)
