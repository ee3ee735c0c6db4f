# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``foreground`` command: foreground masks of a folder of images, as files to look at, mend and train with."""

import logging
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from tqdm import tqdm

from anomalib_diffusionad.checks import require
from anomalib_diffusionad.data.crops import choose_place
from anomalib_diffusionad.data.files import check_folder
from anomalib_diffusionad.data.images import evenly, find_images, read_rgb
from anomalib_diffusionad.synthesis.auto_foreground import find_object
from anomalib_diffusionad.synthesis.isnet import ISNet
from anomalib_diffusionad.synthesis.mask_sources import ComputedMasks, write_mask
from anomalib_diffusionad.visualization.pictures import outlined
from anomalib_diffusionad.visualization.sheet import Tile, draw_sheet

logger = logging.getLogger(__name__)

SHEET = "contact_sheet.png"
SHEET_IMAGES, SHEET_COLUMNS, SHEET_SIDE = 40, 8, 200
OUTLINE, FRAME = (0, 255, 0), (255, 160, 0)
CROPS = 4


def foreground(
    data: str,
    out: str,
    method: Literal["auto", "isnet"] = "auto",
    weights: str | None = None,
    overwrite: bool = False,
    tile_size: int | None = None,
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
        tile_size: That of the model: the contact sheet shows some crops that training may draw.

    Raises:
        FileNotFoundError: If the folder or the weights do not exist, or the folder holds no images.
        ModuleNotFoundError: If IS-Net is wanted and rembg is not installed.
        ValueError: If out is the folder of the images or cannot be written to, two images would share a mask, weights
            are given for "auto", or an image cannot be read.
    """
    require(method != "auto" or weights is None, "weights are for method='isnet'; leave them out or change the method.")
    estimator = find_object if method == "auto" else ISNet(None if weights is None else Path(weights))
    source = ComputedMasks(estimator, method, cache_dir=None)
    mask_paths = _mask_paths(Path(data), Path(out))
    check_folder(Path(out), "out")
    whole = kept = 0
    for image_path, mask_path in tqdm(mask_paths.items(), desc=f"Foreground ({method})"):
        if mask_path.is_file() and not overwrite:
            kept += 1
        else:
            mask = source.from_image(read_rgb(image_path))
            whole += bool(mask.all())
            write_mask(mask, mask_path, image_path)
    if whole:
        logger.warning("No clear object was found on %d images: their masks are the whole image.", whole)
    sheet = _contact_sheet(mask_paths, Path(data), tile_size)
    sheet.save(Path(out) / SHEET)
    if kept:
        logger.info("%d masks were there already and stay as they are; overwrite computes them anew.", kept)
    logger.info("Wrote %d masks to %s. Look at %s before you train.", len(mask_paths) - kept, out, Path(out) / SHEET)


def _mask_paths(data: Path, out: Path) -> dict[Path, Path]:
    """The mask file of each image file of a folder."""
    require(data.resolve() != out.resolve(), f"out must be another folder than data, got {out} for both.")
    images = [path for path in find_images(data) if not path.resolve().is_relative_to(out.resolve())]
    require(bool(images), f"All images of {data} lie in {out}, where the masks would go: give another folder as out.")
    masks = {path: (out / path.relative_to(data)).with_suffix(".png") for path in images}
    shared = [mask for mask, count in Counter(masks.values()).items() if count > 1]
    require(
        not shared,
        f"Several images would share the mask {next(iter(shared), '')}: give images in one folder names that differ.",
    )
    return masks


def _contact_sheet(mask_paths: dict[Path, Path], data: Path, tile_size: int | None = None) -> Image.Image:
    """Evenly spaced images with the outlines of their masks and their names."""
    images = list(mask_paths)
    chosen = evenly(len(images), SHEET_IMAGES)
    tiles = []
    for number in chosen:
        path = images[number]
        mask = np.asarray(Image.open(mask_paths[path]).convert("L")) > 127
        name = str(path.relative_to(data))
        image = read_rgb(path)
        picture = outlined(_fitted(image), mask, OUTLINE, width=1)
        if tile_size is not None:
            _draw_crops(picture, image.shape[:2], tile_size, mask)
        tiles.append(Tile(picture, f"{name} (all)" if mask.all() else name))
    return draw_sheet(tiles, SHEET_COLUMNS, SHEET_SIDE)


def _draw_crops(picture: Image.Image, size: tuple[int, int], tile_size: int, mask: np.ndarray) -> None:
    """Draw frames of random crops of an image of a size on its picture."""
    draw, scale = ImageDraw.Draw(picture), picture.width / size[1]
    large = np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
    generator = torch.Generator().manual_seed(0)
    for _ in range(CROPS):
        top, left = choose_place(size, (tile_size, tile_size), large, generator)
        corners = (left, top, min(left + tile_size, size[1]), min(top + tile_size, size[0]))
        draw.rectangle([round(corner * scale) for corner in corners], outline=FRAME)


def _fitted(image: np.ndarray) -> Image.Image:
    """An image, uint8 ``(H, W, 3)``, at the size of the sheet, so that the outline is of one width on all of them."""
    return ImageOps.contain(Image.fromarray(image), (SHEET_SIDE, SHEET_SIDE))
