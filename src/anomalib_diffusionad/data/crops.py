# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Training images as random crops of large ones, at their own resolution."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .depth import as_rgb, decode
from .reading import MEMORY_MIB, Reader, share_of_process
from .tiles import Size, inside, pad_to, sides

TRIES = 1000


@dataclass
class CropItem(ImageItem):
    """A crop, and where on it anomalies may lie, bool ``(h, w)``; None for anywhere."""

    foreground: Tensor | None = None


@dataclass
class CropBatch(ImageBatch):
    """Crops, and where on them anomalies may lie, bool ``(B, h, w)``; None for anywhere."""

    item_class: ClassVar = CropItem
    foreground: Tensor | None = None


class CropReader(Reader):
    """Reads a random crop of a file. Decoded files are kept in memory of bounded size.

    Args:
        size: Height and width of a crop in pixels. An image that is smaller is continued by its last rows and columns.
        memory_mib: Memory for decoded files in MiB, of all workers together.

    Attributes:
        masks: Gives the foreground of a file, bool ``(H, W)`` of any size: crops are of where it is. None for anywhere.
        foreground: Where the mask lies on the crop that was read last, bool ``(h, w)``; None for anywhere.
        within: Whether anomalies keep to the foreground within a crop too. Not where augmentations move its pixels.
    """

    def __init__(self, size: Size, memory_mib: int = MEMORY_MIB) -> None:
        self.size = sides(size)
        self.memory = memory_mib * 2**20
        self.collate = CropBatch.collate
        self.masks: Callable[[str], NDArray[np.bool_]] | None = None
        self.within = True
        self._kept: OrderedDict[str, tuple[Tensor, NDArray[np.bool_] | None]] = OrderedDict()
        self.foreground: Tensor | None = None

    def image(self, path: str | Path) -> Tensor:
        """A crop, from a place among those that the foreground leaves; drawn by PyTorch's global generator."""
        pixels, mask = self._decoded(str(path))
        top, left = choose_place(pixels.shape[1:], self.size, mask)
        rows, columns = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        crop = pad_to(as_rgb(pixels[:, rows, columns])[None], self.size)[0]
        self.foreground = None
        if mask is not None and self.within:
            part = torch.from_numpy(mask[rows, columns].copy())
            self.foreground = torch.zeros(self.size, dtype=torch.bool)
            self.foreground[: part.shape[0], : part.shape[1]] = part
        elif mask is not None:
            self.foreground = torch.ones(self.size, dtype=torch.bool)
        return as_rgb(crop)

    def finish(self, item: Any) -> Any:  # noqa: ANN401 - an item of any kind
        """Add the foreground of the crop that was read last to its item."""
        if not isinstance(item, ImageItem):
            return item
        known = {name: getattr(item, name) for name in ("image", "gt_mask", "gt_label", "image_path", "mask_path")}
        return CropItem(**known, foreground=self.foreground)

    def __getstate__(self) -> dict[str, Any]:
        """A worker decodes for itself."""
        return self.__dict__ | {"_kept": OrderedDict(), "foreground": None}

    def _decoded(self, path: str) -> tuple[Tensor, NDArray[np.bool_] | None]:
        """Pixels ``(C, H, W)`` and foreground ``(H, W)`` of a file."""
        if path not in self._kept:
            pixels = decode(path, self.intensity_range)
            self._kept[path] = pixels, None if self.masks is None else _fitted(self.masks(path), pixels.shape[1:])
            allowed = share_of_process(self.memory)
            while len(self._kept) > 1 and sum(_bytes(*each) for each in self._kept.values()) > allowed:
                self._kept.popitem(last=False)
        self._kept.move_to_end(path)
        return self._kept[path]


def choose_place(
    image: Sequence[int],
    size: tuple[int, int],
    mask: NDArray[np.bool_] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[int, int]:
    """Draw where a crop starts, so that one random pixel of the foreground lies anywhere in it.

    Args:
        image: Height and width of the image.
        size: Height and width of the crop.
        mask: The foreground, bool ``(H, W)``, not empty; None for all of the image.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        First row and column.
    """
    height, width = image
    for _ in range(TRIES):
        pixel = int(torch.randint(height, (), generator=generator)), int(torch.randint(width, (), generator=generator))
        if mask is None or mask[pixel]:
            break
    else:  # a very small foreground
        marked = np.flatnonzero(np.asarray(mask))
        pixel = divmod(int(marked[int(torch.randint(len(marked), (), generator=generator))]), width)
    before = [int(torch.randint(side, (), generator=generator)) for side in size]
    top, left = (
        inside(place - back, side, length)
        for place, back, length, side in zip(pixel, before, (height, width), size, strict=True)
    )
    return top, left


def crops_an_image(paths: Sequence[str | Path], size: Size) -> int:
    """How many crops of an image make an epoch: as many as fit on the mean image side by side."""
    areas = []
    for path in paths:
        with Image.open(path) as image:
            areas.append(image.width * image.height)
    height, width = sides(size)
    return max(1, round(sum(areas) / max(1, len(areas)) / (height * width)))


def _fitted(mask: NDArray[np.bool_], size: Sequence[int]) -> NDArray[np.bool_]:
    height, width = size
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def _bytes(pixels: Tensor, mask: NDArray[np.bool_] | None) -> int:
    return pixels.numel() * pixels.element_size() + (0 if mask is None else mask.nbytes)
