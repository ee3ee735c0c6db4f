# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Where on an image a synthetic anomaly may lie (figure 5, F)."""

import logging
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from anomalib_diffusionad.checks import require
from anomalib_diffusionad.data.geometry import Geometry
from anomalib_diffusionad.data.images import resize_to
from anomalib_diffusionad.data.tiles import Size, sides

from .auto_foreground import find_object
from .isnet import ISNet
from .mask_sources import ComputedMasks, MaskFolder, MaskSource

logger = logging.getLogger(__name__)


class Foreground:
    """Foreground of a batch of images; this one is the whole of each image.

    Attributes:
        geometry: How the images lie in their files, for masks that belong to files. None where they do not all lie the
            same way, or that is not known.
        needs_files: Whether there is a foreground for images of files alone.
    """

    geometry: Geometry | None = None
    needs_files = False

    def check(self, image_paths: Iterable[str | Path]) -> None:
        """Make sure, before training starts, that there is a foreground for each training image.

        Masks that have to be computed are computed here.

        Raises:
            FileNotFoundError: If there is no mask for an image; the message names it and the places looked at.
            ValueError: If a mask or an image is of no use; the message names it.
        """

    def __call__(
        self,
        image: Tensor,
        image_path: Sequence[str | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Give the foreground of each image.

        Args:
            image: Images ``(N, 3, S, S)`` in [0, 1].
            image_path: File of each image, for masks that belong to files; None for images without one.
            generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

        Returns:
            bool ``(N, 1, S, S)``, on the CPU, where anomalies are drawn. What is on another device is fetched from
            there, which waits for it.
        """
        del image_path, generator
        return whole_image(image)


class RandomPart(Foreground):
    """A random rectangle of each image, the paper's way for textures."""

    def __call__(
        self,
        image: Tensor,
        image_path: Sequence[str | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`Foreground.__call__`."""
        del image_path
        return random_part(image, generator)


class MaskForeground(Foreground):
    """Masks of the training images' files, kept in memory of bounded size.

    Args:
        source: Where the masks come from.
        size: Height and width of the training images in pixels.
        memory_mib: Memory for masks in MiB. Those that do not fit are read or computed anew when needed.
    """

    def __init__(self, source: MaskSource, size: Size, memory_mib: int = 64) -> None:
        self.source = source
        self.size = sides(size)
        self.geometry = Geometry(resize_to(size))
        self.needs_files = source.needs_files
        self._packed = lru_cache(maxsize=max(1, memory_mib * 2**20 * 8 // math.prod(self.size)))(self._read)

    def check(self, image_paths: Iterable[str | Path]) -> None:
        """See :meth:`Foreground.check`; says for how many images the foreground is all of it."""
        paths = [str(path) for path in image_paths]
        if self.geometry is None:
            return
        full = np.packbits(np.ones(math.prod(self.size), dtype=bool))
        masks = (self._packed(self.geometry, path) for path in tqdm(paths, desc="Foreground masks"))
        whole = sum(np.array_equal(mask, full) for mask in masks)
        if whole:
            logger.warning(
                "The foreground is the whole image on %d of %d training images, since no clear object was found on "
                "them or their masks are full: anomalies may lie anywhere there.",
                whole,
                len(paths),
            )

    def __call__(
        self,
        image: Tensor,
        image_path: Sequence[str | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`Foreground.__call__`; without ``image_path`` masks are computed from the images themselves.

        Raises:
            ValueError: If an image has no ``image_path`` and the masks come from a folder.
        """
        del generator
        paths = [None] * len(image) if image_path is None or self.geometry is None else image_path
        if any(path is None for path in paths):  # the only reason to fetch images from their device
            pixels = (image.clamp(0, 1).permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
        masks = torch.empty(len(image), 1, *self.size, dtype=torch.bool)
        for row, path in enumerate(paths):
            mask = self.source.from_image(pixels[row]) if path is None else self._of_file(path)
            masks[row, 0] = torch.from_numpy(mask)
        return masks

    def _of_file(self, image_path: str) -> np.ndarray:
        packed = self._packed(self.geometry, str(image_path))
        return np.unpackbits(packed, count=math.prod(self.size)).reshape(self.size).astype(bool)

    def _read(self, geometry: Geometry, image_path: str) -> np.ndarray:
        """The mask of a file as it lies over the image that the model sees, eight pixels a byte."""
        mask = self.source.read(image_path)
        with Image.open(image_path) as image:
            width, height = image.size
        laid = geometry.lay(mask, (height, width))
        require(
            laid.shape == self.size,
            f"{image_path} comes to the model in {laid.shape[0]} x {laid.shape[1]} pixels, not in {self.size[0]} x "
            f"{self.size[1]}: have the pre_processor resize to height and width.",
        )
        require(
            laid.any() or not self.needs_files,
            f"The foreground mask of {image_path} marks nothing of what the pre_processor leaves of the image: mark "
            f"what is left, or leave pre_processor at its default.",
        )
        return np.packbits(laid if laid.any() else np.ones_like(laid))


def make_foreground(foreground: str, size: Size, cache_dir: Path | None = None, memory_mib: int = 64) -> Foreground:
    """Make a foreground by name.

    Args:
        foreground: ``"none"`` (the whole image), ``"random"`` (a random part of it), ``"auto"`` (found from the image
            alone), ``"isnet"`` (IS-Net), the path of an IS-Net ONNX file, or a folder with masks.
        size: Height and width of the training images in pixels.
        cache_dir: Folder to keep computed masks in, made when the first one is written; None keeps them in memory only.
        memory_mib: Memory for masks in MiB.

    Returns:
        The foreground. Call its ``check`` with the paths of the training images before training.

    Raises:
        ValueError: If the name is neither known nor an existing file or folder.
        FileNotFoundError: If the folder holds no masks.
        ModuleNotFoundError: If IS-Net is wanted and rembg is not installed.
    """
    path = Path(foreground).expanduser()
    if foreground == "none":
        return Foreground()
    if foreground == "random":
        return RandomPart()
    if foreground == "auto":
        return MaskForeground(ComputedMasks(find_object, "auto-1", cache_dir), size, memory_mib)
    if foreground == "isnet" or (path.suffix == ".onnx" and path.is_file()):
        network = ISNet(None if foreground == "isnet" else path)
        return MaskForeground(ComputedMasks(network, network.version, cache_dir), size, memory_mib)
    if path.is_dir():
        return MaskForeground(MaskFolder(path), size, memory_mib)
    msg = (
        f"foreground must be 'none', 'random', 'auto', 'isnet', an existing IS-Net .onnx file or an existing folder "
        f"with masks, got {foreground!r}."
    )
    raise ValueError(msg)


def whole_image(image: Tensor) -> Tensor:
    """The whole of each image: bool ``(N, 1, H, W)``, on the CPU, for images ``(N, 3, H, W)``."""
    return torch.ones(len(image), 1, *image.shape[2:], dtype=torch.bool)


def random_part(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A random rectangle of each image, from a third of each side to all of it, the paper's way for textures.

    Args:
        image: Images ``(N, 3, H, W)``.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        bool ``(N, 1, H, W)``, on the CPU.
    """
    count, _, height, width = image.shape
    side = torch.rand(count, 2, generator=generator) * (2 / 3) + 1 / 3
    start = torch.rand(count, 2, generator=generator) * (1 - side)
    low, high = (value[:, :, None] for value in (start, start + side))
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    rows = (y >= low[:, 0]) & (y < high[:, 0])
    columns = (x >= low[:, 1]) & (x < high[:, 1])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
