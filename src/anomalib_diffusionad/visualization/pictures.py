# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Tensors as pictures: images, masks, amounts in colours, and outlines of masks."""

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation
from torch import Tensor

COLOURS = mpl.colormaps["inferno"]  # of maps and differences, from dark to bright


def heat(amounts: Tensor) -> Image.Image:
    """Amounts ``(H, W)`` in colours from dark, 0, to bright, 1; clamped to [0, 1]."""
    return _image(COLOURS(amounts.detach().float().clamp(0, 1).cpu().numpy())[..., :3])


def grey_or_rgb(values: Tensor) -> Image.Image:
    """An image ``(3, H, W)`` or a mask ``(1, H, W)``, bool or clamped to [0, 1]."""
    pixels = values.detach().float().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0)
    return _image(pixels.cpu().numpy())


def picture(values: Tensor) -> Image.Image:
    """An image ``(3, H, W)``, or amounts ``(1, H, W)`` in colours; clamped to [0, 1]."""
    return heat(values[0]) if len(values) == 1 else grey_or_rgb(values)


def outlined(image: Image.Image, mask: NDArray[np.bool_], colour: tuple[int, int, int], width: int = 2) -> Image.Image:
    """An image with a line of ``width`` pixels around a mask, bool of any size."""
    large = np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))
    pixels = np.asarray(image.convert("RGB")).copy()
    pixels[binary_dilation(large, iterations=width) & ~large] = colour
    return Image.fromarray(pixels)


def _image(pixels: NDArray) -> Image.Image:
    return Image.fromarray((pixels * 255).round().astype(np.uint8))
