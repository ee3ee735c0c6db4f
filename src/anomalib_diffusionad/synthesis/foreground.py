# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Where on an image a synthetic anomaly may lie (figure 5, F)."""

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .auto_foreground import find_object
from .isnet import ISNet
from .mask_sources import ComputedMasks, MaskFolder, MaskSource

logger = logging.getLogger(__name__)


class Foreground:
    """Foreground of a batch of images; this one is the whole of each image."""

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
        image_path: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Give the foreground of each image.

        Args:
            image: Images ``(N, 3, S, S)`` in [0, 1].
            image_path: File of each image, for masks that belong to files. They fit only images that have not been
                flipped, rotated or cropped after they were read.
            generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

        Returns:
            bool ``(N, 1, S, S)`` on the device of the images.
        """
        del image_path, generator
        return whole_image(image)


class RandomPart(Foreground):
    """A random rectangle of each image, the paper's way for textures."""

    def __call__(
        self,
        image: Tensor,
        image_path: Sequence[str] | None = None,
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

    def __init__(self, source: MaskSource, size: int, memory_mib: int = 64) -> None:
        self.source = source
        self.size = size
        self._packed = lru_cache(maxsize=max(1, memory_mib * 2**20 * 8 // size**2))(self._read)

    def check(self, image_paths: Iterable[str | Path]) -> None:
        """See :meth:`Foreground.check`; says for how many images the foreground is all of it."""
        paths = [str(path) for path in image_paths]
        full = np.packbits(np.ones(self.size**2, dtype=bool))
        whole = sum(np.array_equal(self._packed(path), full) for path in tqdm(paths, desc="Foreground masks"))
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
        image_path: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`Foreground.__call__`; without ``image_path`` masks are computed from the images themselves.

        Raises:
            ValueError: If ``image_path`` is None and the masks come from a folder.
        """
        del generator
        if image_path is None:
            pixels = (image.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
            masks = np.stack([self.source.from_image(one) for one in pixels])
        else:
            packed = np.stack([self._packed(str(path)) for path in image_path])
            masks = np.unpackbits(packed, axis=1, count=self.size**2).reshape(-1, self.size, self.size).astype(bool)
        return torch.from_numpy(masks)[:, None].to(image.device, non_blocking=True)

    def _read(self, image_path: str) -> np.ndarray:
        """The mask of a file at the training size, eight pixels a byte."""
        mask = Image.fromarray(self.source.read(image_path))
        return np.packbits(np.asarray(mask.resize((self.size, self.size), Image.Resampling.NEAREST)))


def make_foreground(foreground: str, size: int, cache_dir: Path | None = None, memory_mib: int = 64) -> Foreground:
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
    """The whole of each image: bool ``(N, 1, H, W)`` for images ``(N, 3, H, W)``."""
    return torch.ones_like(image[:, :1], dtype=torch.bool)


def random_part(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A random rectangle of each image, from a third of each side to all of it, the paper's way for textures.

    Args:
        image: Images ``(N, 3, H, W)``.
        generator: Source of randomness on the CPU. Defaults to PyTorch's global one.

    Returns:
        bool ``(N, 1, H, W)``.
    """
    count, _, height, width = image.shape
    side = torch.rand(count, 2, generator=generator) * (2 / 3) + 1 / 3
    start = torch.rand(count, 2, generator=generator) * (1 - side)
    low, high = (value.to(image.device, non_blocking=True)[:, :, None] for value in (start, start + side))
    y = (torch.arange(height, device=image.device) + 0.5) / height
    x = (torch.arange(width, device=image.device) + 0.5) / width
    rows = (y >= low[:, 0]) & (y < high[:, 0])
    columns = (x >= low[:, 1]) & (x < high[:, 1])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
