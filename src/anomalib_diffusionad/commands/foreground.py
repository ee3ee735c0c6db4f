# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``foreground`` command: foreground masks of a folder of images, as files to look at, mend and train with."""

import logging
from collections import Counter
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from anomalib_diffusionad.synthesis.auto_foreground import find_object
from anomalib_diffusionad.synthesis.isnet import ISNet
from anomalib_diffusionad.synthesis.mask_sources import ComputedMasks, read_rgb, write_mask
from anomalib_diffusionad.synthesis.textures import find_images
from anomalib_diffusionad.visualization.sheet import Tile, draw_sheet, evenly

logger = logging.getLogger(__name__)

SHEET = "contact_sheet.png"
SHEET_IMAGES, SHEET_COLUMNS, SHEET_SIDE = 40, 8, 200
OUTLINE = (0, 255, 0)


def foreground(
    data: str,
    out: str,
    method: Literal["auto", "isnet"] = "auto",
    weights: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write foreground masks for training, and a contact sheet to check them by eye.

    Give the folder of the masks to the model as its argument foreground. Masks that are wrong can be painted over, or
    deleted and computed anew with another method.

    Args:
        data: Folder with the normal training images, such as bottle/train/good, searched with all its subfolders.
        out: Folder to write to: one PNG with 0 and 255 an image, mirrored by relative path, and contact_sheet.png.
        method: "auto" finds an object on a plain background from the image alone; "isnet" is IS-Net, the paper's
            way, and needs the extra "foreground". Where no clear object is found, the mask is the whole image.
        weights: ONNX file of IS-Net in place of the one that rembg downloads.
        overwrite: Compute masks that are there already anew, rather than go on where an earlier run ended.

    Raises:
        FileNotFoundError: If the folder or the weights do not exist, or the folder holds no images.
        ModuleNotFoundError: If IS-Net is wanted and rembg is not installed.
        ValueError: If out is the folder of the images, two images would share a mask, weights are given for "auto", or
            an image cannot be read.
    """
    if method == "auto" and weights is not None:
        msg = "weights are for method='isnet'; leave them out or change the method."
        raise ValueError(msg)
    estimator = find_object if method == "auto" else ISNet(None if weights is None else Path(weights))
    source = ComputedMasks(estimator, method, cache_dir=None)
    mask_paths = _mask_paths(Path(data), Path(out))
    whole = 0
    for image_path, mask_path in tqdm(mask_paths.items(), desc=f"Foreground ({method})"):
        if overwrite or not mask_path.is_file():
            mask = source.from_image(read_rgb(image_path))
            whole += bool(mask.all())
            write_mask(mask, mask_path)
    if whole:
        logger.warning("No clear object was found on %d images: their masks are the whole image.", whole)
    sheet = _contact_sheet(mask_paths, Path(data))
    sheet.save(Path(out) / SHEET)
    logger.info("Wrote %d masks to %s. Look at %s before you train.", len(mask_paths), out, Path(out) / SHEET)


def _mask_paths(data: Path, out: Path) -> dict[Path, Path]:
    """The mask file of each image file of a folder."""
    if data.resolve() == out.resolve():
        msg = f"out must be another folder than data, got {out} for both."
        raise ValueError(msg)
    images = [path for path in find_images(data) if not path.resolve().is_relative_to(out.resolve())]
    masks = {path: (out / path.relative_to(data)).with_suffix(".png") for path in images}
    shared = [mask for mask, count in Counter(masks.values()).items() if count > 1]
    if shared:
        msg = f"Several images would share the mask {shared[0]}: give images in one folder names that differ."
        raise ValueError(msg)
    return masks


def _contact_sheet(mask_paths: dict[Path, Path], data: Path) -> Image.Image:
    """Evenly spaced images with the outlines of their masks and their names."""
    images = list(mask_paths)
    chosen = evenly(len(images), SHEET_IMAGES)
    tiles = []
    for number in chosen:
        path = images[number]
        mask = np.asarray(Image.open(mask_paths[path]).convert("L")) > 127
        name = str(path.relative_to(data))
        tiles.append(Tile(_outlined(read_rgb(path), mask), f"{name} (all)" if mask.all() else name))
    return draw_sheet(tiles, SHEET_COLUMNS, SHEET_SIDE)


def _outlined(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    """An image, uint8 ``(H, W, 3)``, at the size of the sheet with the outline of its mask, bool of any size."""
    scale = SHEET_SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, OUTLINE, 1)
    return Image.fromarray(picture)
