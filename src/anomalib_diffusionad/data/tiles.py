# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Looks at large images through tiles that overlap, and blends what is seen there without seams."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from anomalib_diffusionad.checks import require

Size = int | tuple[int, int]

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE, SIZE_MULTIPLE = 64, 512, 32

# of tiles that a network sees at once: 4 of 256 x 256 pixels on a processor
PIXELS_AT_ONCE = {"cpu": 2**18, "cuda": 2**21}
# weight of a tile at its very edge, where there may be no other
LEAST_WEIGHT = 1e-3
PATIENCE = 10.0  # seconds before a bar shows progress


def as_size(value: Any) -> Any:  # noqa: ANN401
    """A size as it is written and compared: one number where both sides are equal, else height and width."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return value
    height, width = value
    return height if height == width else (height, width)


def sides(size: Size) -> tuple[int, int]:
    """Height and width, of which one number stands for both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def check_image_size(image_size: Size) -> None:
    """Refuse a size that the networks are not made for.

    Raises:
        ValueError: If it is one.
    """
    require(
        all(side % SIZE_MULTIPLE == 0 and side >= MIN_IMAGE_SIZE for side in sides(image_size))
        and math.prod(sides(image_size)) <= MAX_IMAGE_SIZE**2,
        f"image_size must be a multiple of {SIZE_MULTIPLE} from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}, or "
        f"[height, width] of such multiples that have no more pixels together, got {image_size}.",
    )


def starts(length: int, tile: int, overlap: float) -> NDArray[np.int64]:
    """Where tiles start along a side, spread evenly from its start to its end.

    Args:
        length: Pixels of the side, at least ``tile``.
        tile: Pixels of a tile.
        overlap: Share of a tile that it has in common with the next, at least.
    """
    step = max(1, int(tile * (1 - overlap)))
    count = 1 - (tile - length) // step
    return np.linspace(0, length - tile, count).round().astype(np.int64)


def window(tile: int, overlap: float) -> NDArray[np.float32]:
    """Weights of a tile along a side: 1 in the middle, and smoothly towards 0 over what it shares with others."""
    ramp = max(1, round(tile * overlap))
    rise = np.sin(np.pi / 2 * (np.arange(ramp) + 0.5) / ramp) ** 2
    weight = np.ones(tile)
    weight[:ramp] *= rise
    weight[tile - ramp :] *= rise[::-1]
    return weight.clip(LEAST_WEIGHT).astype(np.float32)


def inside(start: int, side: int, length: int) -> int:
    """Where a window of a side starts, moved as little as can be to lie in an image of a length; 0 if it is longer."""
    return min(max(0, start), max(0, length - side))


def summed_weights(length: int, tile: int, overlap: float) -> NDArray[np.float32]:
    """What the weights of all tiles sum to at each pixel of a side."""
    total, weight = np.zeros(length, np.float32), window(tile, overlap)
    for start in starts(length, tile, overlap):
        total[start : start + tile] += weight
    return total


def slide(look: Callable[[Tensor], Tensor], image: Tensor, tile: Size, overlap: float) -> Tensor:
    """Look at images tile by tile, a few tiles at once.

    Memory is that of the images, of the result and of a few tiles. An image that is smaller than a tile is continued by
    its last rows and columns.

    Args:
        look: Gives for tiles ``(N, 3, h, w)`` what is to be blended, ``(N, C, h, w)``.
        image: ``(B, 3, H, W)``.
        tile: Height and width of a tile in pixels.
        overlap: Share of a tile that it has in common with the next, at least.

    Returns:
        float32 ``(B, C, H, W)``.
    """
    size, (*_, height, width) = sides(tile), image.shape
    image = pad_to(image, size)
    rows, columns = (starts(length, side, overlap) for length, side in zip(image.shape[2:], size, strict=True))
    weight = torch.from_numpy(np.outer(*(window(side, overlap) for side in size))).to(image.device)
    places = [(each, int(top), int(left)) for each in range(len(image)) for top in rows for left in columns]
    at_once = max(1, PIXELS_AT_ONCE.get(image.device.type, PIXELS_AT_ONCE["cpu"]) // weight.numel())
    result: Tensor | None = None
    for first in tqdm(range(0, len(places), at_once), desc="Tiles", leave=False, delay=PATIENCE, unit_scale=at_once):
        some = places[first : first + at_once]
        found = look(
            torch.stack([image[each, :, top : top + size[0], left : left + size[1]] for each, top, left in some])
        )
        if result is None:
            result = torch.zeros(len(image), found.shape[1], *image.shape[2:], device=image.device)
        for (each, top, left), one in zip(some, found.float(), strict=True):
            result[each, :, top : top + size[0], left : left + size[1]] += one * weight
    total = [torch.from_numpy(summed_weights(*pair, overlap)) for pair in zip(image.shape[2:], size, strict=True)]
    result = result.div_(total[0].to(image.device)[:, None]).div_(total[1].to(image.device))  # type: ignore[union-attr]
    return result[..., :height, :width]


def pad_to(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Continue images ``(B, C, H, W)`` that are smaller than a size by their last rows and columns."""
    missing = [max(0, wanted - given) for wanted, given in zip(size, image.shape[2:], strict=True)]
    return F.pad(image, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else image
