# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Shapes of synthetic anomalies: thresholded Perlin noise, a batch at a time (figure 5, P)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

MAX_SCALE_EXPONENT = 5
THRESHOLD = 0.5
TRIES = 50  # shapes for each image, at most
_LATTICE = 2**MAX_SCALE_EXPONENT + 1


class PerlinNoise(NamedTuple):
    """Parameters of N Perlin noise fields.

    Attributes:
        scale: Lattice cells along height and width, ``(N, 2)``.
        angle: Rotation about the centre in radians, ``(N,)``.
        gradient: Direction of the gradient at each lattice point in radians, ``(N, 33, 33)``.
    """

    scale: Tensor
    angle: Tensor
    gradient: Tensor

    @classmethod
    def draw(cls, count: int, generator: torch.Generator | None) -> "PerlinNoise":
        """Draw fields with 2^0 .. 2^5 cells an axis, rotated by up to 90 degrees either way."""
        exponent = torch.randint(0, MAX_SCALE_EXPONENT + 1, (count, 2), generator=generator)
        angle = (torch.rand(count, generator=generator) - 0.5) * torch.pi
        gradient = torch.rand((count, _LATTICE, _LATTICE), generator=generator) * (2 * torch.pi)
        return cls(2.0**exponent, angle, gradient)

    def evaluate(self, size: int) -> Tensor:
        r"""Sample the fields on ``size`` x ``size`` points.

        The noise at a point is a weighted sum over the lattice of gradient times distance, and both weights and
        distances are products of one factor for the row and one for the column. So a field is two matrix products,
        :math:`D_y \sin(G) W_x^T + W_y \cos(G) D_x^T`, and needs no look-up per pixel.

        Args:
            size: Points along height and width.

        Returns:
            Noise ``(N, size, size)``, roughly in [-1, 1]; 0 where rotation brings in what lies outside.
        """
        weight_y, distance_y = self._lattice_weights(size, axis=0)
        weight_x, distance_x = self._lattice_weights(size, axis=1)
        rows = torch.cat([distance_y, weight_y], dim=2)
        columns = torch.cat(
            [self.gradient.sin() @ weight_x.mT, self.gradient.cos() @ distance_x.mT],
            dim=1,
        )
        return rotate(2**0.5 * (rows @ columns)[:, None], self.angle)[:, 0]

    def _lattice_weights(self, size: int, axis: int) -> tuple[Tensor, Tensor]:
        """Interpolation weight of each lattice line at each point of an axis, and weight times distance.

        Both are ``(N, size, 33)``; only the two lines next to a point count.
        """
        point = torch.arange(size) / size * self.scale[:, axis, None]
        distance = point[:, :, None] - torch.arange(_LATTICE)
        weight = 1 - _fade(distance.abs().clamp(max=1))
        return weight, weight * distance


def perlin_masks(foreground: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one anomaly shape an image that meets its foreground (section 4.4).

    Shapes are drawn again while their product with the foreground is empty. They are drawn on the CPU, wherever the
    training is: a seed means the same shapes for all devices, to the last pixel, and no device is waited for.

    Args:
        foreground: Where anomalies may lie, bool ``(N, 1, H, W)``, on the CPU. Shapes are drawn on a square around it.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        Shapes, bool ``(N, 1, H, W)`` on the CPU, not yet multiplied with the foreground. Where all tries miss the
        foreground, the product stays empty.
    """
    mask = torch.zeros_like(foreground)
    missing = torch.arange(len(foreground))
    for _ in range(TRIES):
        noise = PerlinNoise.draw(len(missing), generator)
        mask[missing] = (_middle(noise.evaluate(max(mask.shape[2:])), mask.shape[2:]) > THRESHOLD)[:, None]
        # the maximum of bytes is much faster than any()
        met = (mask[missing] & foreground[missing]).flatten(1).view(torch.uint8).amax(dim=1)
        missing = missing[met == 0]
        if len(missing) == 0:
            break
    return mask


def _middle(square: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of squares ``(N, S, S)``, ``(N, H, W)``."""
    top, left = ((square.shape[-1] - side) // 2 for side in size)
    return square[:, top : top + size[0], left : left + size[1]]


def rotate(image: Tensor, angle: Tensor) -> Tensor:
    """Rotate images about their centre, filling with 0.

    Args:
        image: ``(N, C, S, S)``.
        angle: Radians, ``(N,)``.

    Returns:
        Images of the same shape, interpolated bilinearly.
    """
    # what affine_grid gives, without its slow matrix products
    size = image.shape[-1]
    point = (torch.arange(size) * 2 + 1) / size - 1
    cos, sin = (value[:, None, None] for value in (angle.cos(), angle.sin()))
    grid = image.new_empty(len(image), 2, size, size)
    torch.sub(cos * point, sin * point[:, None], out=grid[:, 0])
    torch.add(sin * point, cos * point[:, None], out=grid[:, 1])
    return F.grid_sample(image, grid.permute(0, 2, 3, 1), align_corners=False)


def _fade(t: Tensor) -> Tensor:
    return t * t * t * (t * (t * 6 - 15) + 10)
