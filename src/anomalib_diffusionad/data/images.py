# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Image files: finding them, and reading them as a model sees them."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import Resize

from anomalib_diffusionad.checks import require

from .depth import IntensityRange, is_deep, read_float, stretched
from .tiles import Size, sides

logger = logging.getLogger(__name__)

# takes an image (C, H, W), or an image and its mask, and gives the same
Transform = Callable[..., Any]


def find_images(folder: str | Path) -> list[Path]:
    """List the image files below a folder, sorted, without hidden ones.

    Args:
        folder: The folder.

    Returns:
        Paths, at least one.

    Raises:
        FileNotFoundError: If the folder is missing or holds no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"The folder {folder} does not exist; give one with images in it."
        raise FileNotFoundError(msg)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS and path.is_file())
    files = [path for path in found if not is_hidden(path.relative_to(folder))]
    if len(files) < len(found):
        hidden = next(path for path in found if path not in set(files))
        logger.warning("Left %d hidden files out of %s, such as %s.", len(found) - len(files), folder, hidden)
    if not files:
        msg = f"The folder {folder} holds no images ({', '.join(IMG_EXTENSIONS)})."
        raise FileNotFoundError(msg)
    return files


def is_hidden(path: Path) -> bool:
    """Whether a path is of a file that systems and programs keep beside the user's, such as ``._000.png`` of a Mac."""
    return any(part == "__MACOSX" or (part.startswith(".") and part not in {".", ".."}) for part in path.parts)


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read an image file of any mode as RGB, uint8 ``(H, W, 3)``, to look at or to find objects on.

    Grey images of more than 8 bits reach from their own smallest to their own largest value.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with Image.open(path) as image:
            shown = Image.fromarray(stretched(np.asarray(image))) if is_deep(image) else image
            return np.asarray(shown.convert("RGB"))
    except (OSError, ValueError) as error:
        msg = f"The image {path} cannot be read: {error}"
        raise ValueError(msg) from error


def orientation(image: Image.Image) -> int:
    """How an image is to be turned to be looked at, from 1 (not) to 8: a tag that anomalib does not follow."""
    # of TIFF files Pillow follows it
    value = 1 if image.format == "TIFF" else image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def check_same_way_up(image_path: str | Path, mask_path: str | Path) -> None:
    """Refuse a mask that was made for the turned image, where the file tells viewers to turn it.

    Raises:
        ValueError: If it was, or nothing shows that it was not; the message says what to do.
    """
    with Image.open(image_path) as image, Image.open(mask_path) as mask:
        one, other = orientation(image), orientation(mask)
        lying = [(file.width > file.height) - (file.width < file.height) for file in (image, mask)]
    turned_by_a_quarter = (one > 4) != (other > 4)
    fits = one == other or (turned_by_a_quarter and lying[0] != 0 and lying[0] == lying[1])
    require(
        fits,
        f"The image {image_path} carries an EXIF tag that turns it in viewers but not in anomalib, and its mask "
        f"{mask_path} does not show that it lies as the file does: save the image as it is to be seen, without the tag "
        f"(Pillow's ImageOps.exif_transpose does).",
    )


def read_as_seen(path: str | Path, transform: Transform | None, intensity_range: IntensityRange = "full") -> Tensor:
    """Read an image file as a model sees it, ``(3, S, S)`` in [0, 1].

    Args:
        path: The file.
        transform: That of the model's pre-processor; None to leave the image at its size.
        intensity_range: As :func:`~anomalib_diffusionad.data.depth.read_float` takes it.
    """
    image, _ = as_seen(read_float(path, intensity_range), None, transform)
    return image


def as_seen(image: Tensor, mask: Tensor | None, transform: Transform | None) -> tuple[Tensor, Tensor | None]:
    """Give an image, ``(1, H, W)`` or ``(3, H, W)``, and its mask the form in which a model sees them.

    Raises:
        ValueError: If it is a clip of several images.
    """
    require(
        image.ndim == 3,
        f"A clip of several frames, {tuple(image.shape)}, is no image: set the datamodule's clip_length_in_frames "
        f"to 1.",
    )
    if transform is not None:
        image, mask = (transform(image), None) if mask is None else transform(image, mask)
    return image.as_subclass(Tensor).expand(3, -1, -1), mask


def resize_to(size: Size) -> Transform:
    """The transform of DiffusionAD's own pre-processor, to height and width in pixels, or one number for both."""
    return Resize(sides(size), antialias=True)


def evenly(available: int, count: int) -> NDArray[np.int64]:
    """``count`` row numbers below ``available``, spread evenly from the first to the last; all if there are fewer."""
    return np.linspace(0, available - 1, min(count, available)).round().astype(np.int64)
