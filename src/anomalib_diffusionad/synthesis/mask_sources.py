# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Where foreground masks of image files come from: a folder of ready ones, or an estimator with a cache on disk."""

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from anomalib_diffusionad.data.files import whole_file
from anomalib_diffusionad.data.images import check_same_way_up, find_images, orientation, read_rgb

# takes an RGB image, uint8 (H, W, 3), and gives a mask, bool (H, W), or None where it is not sure
Estimator = Callable[[np.ndarray], np.ndarray | None]


class MaskSource(ABC):
    """Gives the foreground mask of an image file.

    Attributes:
        needs_files: Whether there are masks for files alone.
    """

    needs_files = False

    @abstractmethod
    def read(self, image_path: str | Path) -> np.ndarray:
        """Give the mask of an image file, bool ``(H, W)``; H and W need not be the image's."""

    @abstractmethod
    def from_image(self, image: np.ndarray) -> np.ndarray:
        """Give the mask, bool ``(H, W)``, of an image without a file, uint8 ``(H, W, 3)``."""


class MaskFolder(MaskSource):
    """Ready masks, found by relative path and stem.

    For ``.../bottle/train/good/000.png`` these fit, with any image suffix: ``000.png``, ``good/000.png``,
    ``train/good/000.png`` and so on, and ``bottle/DISthresh/good/000.png``. Where several fit, the one with the longest
    common ending of the path is taken, then the one with most folder names in common.

    Args:
        folder: Folder with masks, searched with all its subfolders. Pixels from 128 on are foreground.

    Raises:
        FileNotFoundError: If the folder is missing or holds no images.
    """

    needs_files = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in find_images(folder):
            self._by_stem[path.stem].append(path)

    def read(self, image_path: str | Path) -> np.ndarray:
        """Read the mask of an image file.

        Args:
            image_path: The image.

        Returns:
            bool ``(H, W)``.

        Raises:
            FileNotFoundError: If there is no mask for the image.
            ValueError: If several masks fit equally well, the mask has no foreground, or it may lie in another way than
                the image does in its file.
        """
        path = self._find(Path(image_path))
        check_same_way_up(image_path, path)
        mask = np.asarray(Image.open(path).convert("L")) > 127
        if not mask.any():
            msg = f"The foreground mask {path} is empty: no pixel is 128 or more. Masks are images with 0 and 255."
            raise ValueError(msg)
        return mask

    def from_image(self, image: np.ndarray) -> np.ndarray:
        """Refuse: a ready mask belongs to a file.

        Raises:
            ValueError: Always.
        """
        msg = (
            f"The foreground masks in {self.folder} belong to image files, but this image of shape {image.shape} comes "
            f"without its path."
        )
        raise ValueError(msg)

    def _find(self, image_path: Path) -> Path:
        fits = defaultdict(list)
        for mask in self._by_stem.get(image_path.stem, []):
            parents = mask.relative_to(self.folder).parent.parts
            ending = _common_ending(parents, image_path.parent.parts)
            if ending or not parents:
                fits[ending, len(set(parents) & set(image_path.parts))].append(mask)
        if not fits:
            places = f"{image_path.stem}.png or {image_path.parent.name}/{image_path.stem}.png"
            msg = (
                f"There is no foreground mask for {image_path} in {self.folder}: looked for {places} (or another image "
                f"suffix), and for masks in a folder that mirrors that of the images."
            )
            raise FileNotFoundError(msg)
        best = fits[max(fits)]
        if len(best) > 1:
            msg = f"Several foreground masks fit {image_path} equally well: {', '.join(map(str, best))}. Keep one."
            raise ValueError(msg)
        return best[0]


class ComputedMasks(MaskSource):
    """Masks computed once for each image content and cached as PNG.

    Where the estimator is not sure the mask is the whole image.

    Args:
        estimator: Computes a mask.
        method: Name and version of the estimator, for the cache.
        cache_dir: Folder of the cache, or None for no cache on disk.
    """

    def __init__(self, estimator: Estimator, method: str, cache_dir: Path | None) -> None:
        self.estimator = estimator
        self.method = method
        self.cache_dir = cache_dir

    def read(self, image_path: str | Path) -> np.ndarray:
        """Read the mask of an image file from the cache, or compute it; bool ``(H, W)``.

        Raises:
            ValueError: If the image cannot be read.
        """
        if self.cache_dir is None:
            return self.from_image(read_rgb(image_path))
        digest = hashlib.sha256(Path(image_path).read_bytes()).hexdigest()
        cached = self.cache_dir / self.method / f"{digest}.png"
        if cached.is_file():
            with suppress(OSError, SyntaxError):  # a broken one is made anew
                return np.asarray(Image.open(cached).convert("L")) > 127
        mask = self.from_image(read_rgb(image_path))
        write_mask(mask, cached)
        return mask

    def from_image(self, image: np.ndarray) -> np.ndarray:
        """Compute the mask, bool ``(H, W)``, of an image, uint8 ``(H, W, 3)``."""
        mask = self.estimator(image)
        return np.ones(image.shape[:2], dtype=bool) if mask is None else mask


def write_mask(mask: np.ndarray, path: Path, image_path: str | Path | None = None) -> None:
    """Write a mask, bool ``(H, W)``, as PNG with 0 and 255, whole or not at all.

    Args:
        mask: The mask.
        path: File to write.
        image_path: Image of the mask. Where a tag of its file turns it in viewers, the mask's turns the mask too.
    """
    exif = Image.Exif()
    if image_path is not None:
        with Image.open(image_path) as image:
            exif[ExifTags.Base.Orientation] = orientation(image)
    with whole_file(path, several_writers=True) as draft:
        Image.fromarray(mask).convert("L").save(draft, format="PNG", exif=exif)


def _common_ending(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """Number of last parts that two paths have in common."""
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    return count
