# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Writing images that were made, and not photographed, in the MVTec AD layout."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


def write_category(
    folder: Path,
    train: Iterable[Picture],
    good: Iterable[Picture],
    defective: Iterable[tuple[str, Picture, Mask]],
) -> None:
    """Write a category; images are taken one at a time, in the order of the arguments.

    Args:
        folder: Folder of the category.
        train: Normal training images, ``(H, W, 3)`` in [0, 1].
        good: Normal test images.
        defective: Kind of defect, image and mask, bool ``(H, W)``, of each defective test image.
    """
    for split, images in (("train", train), ("test", good)):
        for number, image in enumerate(images):
            save_picture(image, folder / split / "good" / f"{number:03d}.png")
    written: Counter[str] = Counter()
    for kind, image, mask in defective:
        save_picture(image, folder / "test" / kind / f"{written[kind]:03d}.png")
        save_picture(mask.astype(float), folder / "ground_truth" / kind / f"{written[kind]:03d}_mask.png")
        written[kind] += 1


def save_picture(image: Picture, path: Path) -> None:
    """Write an image, ``(H, W, 3)`` or ``(H, W)`` in [0, 1]; its folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * 255).round().astype(np.uint8)).save(path)
