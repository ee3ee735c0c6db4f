# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Image files of any depth and colour as RGB in [0, 1]: one rule for each kind, the same in training and afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_dtype, to_image
from torchvision.tv_tensors import Image as TVImage

from anomalib_diffusionad.checks import require

# what becomes 0 and what becomes 1
Span = tuple[float, float]
IntensityRange = Literal["full", "percentiles"] | Span
WORDS = ("full", "percentiles")

DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras give
TAIL = 0.1  # percent of the pixels at either end that percentiles leave out
HEADROOM = 0.1  # of the span, on either side, for images brighter or darker than those of the training
SAMPLED_IMAGES, SAMPLED_PIXELS = 64, 100_000


def check_intensity_range(value: Any) -> None:  # noqa: ANN401
    """Require that an ``intensity_range`` is one.

    Raises:
        ValueError: If it is neither a known word nor two rising numbers.
    """
    pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(np.isfinite(value)) and value[0] < value[1]
    require(
        pair or value in WORDS,
        f"intensity_range must be 'full', 'percentiles' or two numbers [low, high] with low < high, got {value!r}.",
    )


def is_deep(image: Image.Image) -> bool:
    """Whether an image is grey with more than 8 bits a pixel, of which Pillow, and so anomalib, cuts most off."""
    return image.mode[0] in "IF"


def read_float(path: str | Path, intensity_range: IntensityRange = "full") -> Tensor:
    """Read an image file as RGB, float32 ``(3, H, W)`` in [0, 1]; arguments and errors as of :func:`decode`."""
    return as_rgb(decode(path, intensity_range))


def decode(path: str | Path, intensity_range: IntensityRange = "full") -> Tensor:
    """Read an image file in as little memory as holds what a model sees of it.

    Grey images of more than 8 bits are mapped by ``intensity_range``; what lies beyond it is black or white. All
    others are what anomalib reads: 8 bits, without alpha, palettes and other colour spaces as RGB, the first page of
    several, as stored where an EXIF tag turns the image in viewers.

    Args:
        path: The file.
        intensity_range: What becomes 0 and what becomes 1. A word stands for what is known without other images: 0 to
            65535 for whole numbers, 0 to 1 for others.

    Returns:
        uint8 ``(3, H, W)``, or of a deep image float32 ``(1, H, W)`` in [0, 1].

    Raises:
        ValueError: If the image has values that are not finite, or whose range is not known.
    """
    with Image.open(path) as image:
        if not is_deep(image):
            return to_image(image.convert("RGB")).as_subclass(Tensor)
        try:
            return torch.from_numpy(scaled(np.asarray(image), intensity_range))[None]
        except ValueError as error:
            msg = f"The image {path} cannot be used: {error}."
            raise ValueError(msg) from error


def as_rgb(pixels: Tensor) -> Tensor:
    """What :func:`decode` gives as RGB, float32 ``(3, H, W)`` in [0, 1]."""
    return TVImage(to_dtype(pixels, torch.float32, scale=True).expand(3, -1, -1).contiguous())


def scaled(values: NDArray[Any], intensity_range: IntensityRange = "full") -> NDArray[np.float32]:
    """Map the values of a grey image of any type to [0, 1], float32; arguments and errors as of :func:`decode`."""
    low, high = _extremes(values)
    span = _span_of_a_kind(values, low, high) if isinstance(intensity_range, str) else intensity_range
    require(
        span is not None,
        f"it holds values from {low:g} to {high:g}, and no range is known for them: set intensity_range to [low, high]",
    )
    start, end = span  # type: ignore[misc]
    return ((values.astype(np.float32) - start) / (end - start)).clip(0, 1).astype(np.float32)


def exceeds(values: NDArray[Any], intensity_range: IntensityRange) -> bool:
    """Whether a grey image has values beyond a known range."""
    low, high = _extremes(values)
    return not isinstance(intensity_range, str) and (low < intensity_range[0] or high > intensity_range[1])


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """A grey image of any type as bytes, from its own smallest to its own largest value; to look for objects on."""
    low, high = _extremes(values)
    return (scaled(values, (low, high) if low < high else (low - 1, low)) * 255).round().astype(np.uint8)


def measure_range(paths: Sequence[str | Path], how: Literal["full", "percentiles"]) -> Span | None:
    """The range of the deep images among the training images.

    Args:
        paths: Files of the training images.
        how: ``"full"``: whole numbers from 0 to the largest of 8, 10, 12, 14 or 16 bits, whichever holds all of them;
            others from 0 to 1 where all lie there, else from the smallest to the largest value. ``"percentiles"``: from
            the lowest to the highest thousandth of the pixels of up to 64 images. Ranges that come from the values
            themselves are wider by a tenth on either side.

    Returns:
        The range; None where no image is deep.
    """
    deep = [path for path in paths if file_is_deep(path)]
    if not deep:
        return None
    if how == "percentiles":
        chosen = np.linspace(0, len(deep) - 1, min(len(deep), SAMPLED_IMAGES)).round().astype(int)
        values = np.concatenate([_sample(deep[number]) for number in chosen])
        return _widened(*np.percentile(values, (TAIL, 100 - TAIL)))
    whole, extremes = True, []
    for path in deep:
        with Image.open(path) as image:
            values = np.asarray(image)
        whole = whole and values.dtype.kind in "iu"
        extremes.append(_extremes(values))
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if whole and low >= 0 and high < 2 ** DEPTHS[-1]:
        return 0.0, float(next(2**bits - 1 for bits in DEPTHS if high < 2**bits))
    return (0.0, 1.0) if 0 <= low <= high <= 1 else _widened(low, high)


def file_is_deep(path: str | Path) -> bool:
    """Whether a file is as :func:`is_deep` says."""
    with Image.open(path) as image:
        return is_deep(image)


def _sample(path: str | Path) -> NDArray[np.float64]:
    with Image.open(path) as image:
        values = np.asarray(image).ravel()
    return values[:: -(-len(values) // SAMPLED_PIXELS)].astype(np.float64)


def _extremes(values: NDArray[Any]) -> Span:
    low, high = float(values.min()), float(values.max())
    require(np.isfinite(low) and np.isfinite(high), "it holds values that are not finite")
    return low, high


def _span_of_a_kind(values: NDArray[Any], low: float, high: float) -> Span | None:
    if 0 <= low <= high <= 1 and values.dtype.kind == "f":
        return 0.0, 1.0
    whole = values.dtype.kind in "iu" and low >= 0 and high < 2 ** DEPTHS[-1]
    return (0.0, 2.0 ** DEPTHS[-1] - 1) if whole else None


def _widened(low: float, high: float) -> Span:
    margin = HEADROOM * (high - low) or 0.5
    return float(low - margin), float(high + margin)
