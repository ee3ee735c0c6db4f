# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Whether images lie alike."""

import torch
from torch.nn import functional as F  # noqa: N812

from anomalib_diffusionad.training.poses import _principal_axes, aligned

from .bars import SIZE, bars


def test_images_lie_alike_or_in_any_pose() -> None:
    assert aligned(bars(turned=False))
    assert not aligned(bars(turned=True))
    generator = torch.Generator().manual_seed(0)
    assert not aligned(torch.rand(40, 3, SIZE, SIZE, generator=generator))  # a texture
    assert aligned(torch.rand(4, 3, SIZE, SIZE, generator=generator))  # too few to tell


def test_images_that_differ_much_are_as_if_in_any_pose() -> None:
    images, generator = bars(turned=False), torch.Generator().manual_seed(1)
    clouds = F.avg_pool2d(torch.randn(images.shape, generator=generator), 5, stride=1, padding=2)
    assert aligned(images + 0.4 * clouds)
    assert not aligned(images + 0.9 * clouds)  # turned 1.3 times as far from their axes


def test_the_axes_are_those_of_the_largest_variance() -> None:
    """Of two strong patterns and a weak noise these are the patterns; 16 images have no more."""
    generator = torch.Generator().manual_seed(3)
    patterns = torch.linalg.qr(torch.randn(3 * 16, 2, generator=generator)).Q.T
    amounts = torch.randn(16, 2, generator=generator) * torch.tensor([3.0, 2.0])
    images = 0.5 + amounts @ patterns + 0.01 * torch.randn(16, 48, generator=generator)
    mean, axes = _principal_axes(images.view(16, 3, 4, 4))
    torch.testing.assert_close(mean, images.mean(dim=0))
    torch.testing.assert_close(axes @ axes.T, torch.eye(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(axes.T @ axes @ patterns.T, patterns.T, rtol=0, atol=0.02)
