# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Large images of a ground surface; its defects are pits and grains of 8 to 20 pixels."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (2000, 3000)
KINDS = ("pit", "grain")
SMALLEST, LARGEST = 8, 20
SEED = 2  # beside that of the user, so that the categories differ


def make_large_surface(
    root: str | Path,
    train: int = 12,
    good: int = 10,
    defects: int = 5,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Write the category ``large_surface``.

    Args:
        root: Folder to write to: ``root/large_surface`` in the MVTec AD layout.
        train: Number of normal training images.
        good: Number of normal test images.
        defects: Number of test images of each of the two kinds of defect, one to three defects on each.
        seed: Seed of everything that is drawn.
        size: Height and width of the images in pixels.

    Returns:
        The folder of the category.
    """
    folder, rng = Path(root) / "large_surface", np.random.default_rng([seed, SEED])
    plan = [
        ("train/good", None, train),
        ("test/good", None, good),
        *((f"test/{kind}", kind, defects) for kind in KINDS),
    ]
    for place, kind, count in plan:
        (folder / place).mkdir(parents=True, exist_ok=True)
        if kind is not None:
            (folder / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = draw_surface(rng, kind, size)
            Image.fromarray(image).save(folder / place / f"{number:03d}.png", compress_level=1)
            if kind is not None:
                Image.fromarray(mask).save(folder / "ground_truth" / kind / f"{number:03d}_mask.png")
    return folder


def draw_surface(
    rng: np.random.Generator, kind: str | None = None, size: tuple[int, int] = SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a surface, grey uint8 ``(H, W)``, and the mask of its defects, 0 and 255."""
    height, width = size
    grooves = cv2.GaussianBlur(rng.normal(0, 1, size).astype(np.float32), (0, 0), sigmaX=12, sigmaY=0.8)
    coarse = rng.normal(0, 1, (height // 100 + 2, width // 100 + 2)).astype(np.float32)
    light = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grey = 0.5 + 0.07 * grooves / grooves.std() + 0.03 * light + rng.normal(0, 0.01, size).astype(np.float32)
    mask = np.zeros(size, np.uint8)
    for _ in range(int(rng.integers(1, 4)) if kind else 0):
        shape = _blot(rng)
        side = len(shape)
        top, left = (int(rng.integers(0, length - side)) for length in size)
        part = slice(top, top + side), slice(left, left + side)
        strength = rng.uniform(0.2, 0.35) * (-1 if kind == "pit" else 1)
        grey[part] += strength * cv2.GaussianBlur(shape.astype(np.float32), (0, 0), 0.8)
        mask[part] |= shape.astype(np.uint8) * 255
    return (grey.clip(0, 1) * 255).round().astype(np.uint8), mask


def _blot(rng: np.random.Generator) -> np.ndarray:
    """A round shape with an uneven edge, bool ``(h, h)``, 8 to 20 pixels wide."""
    radius = rng.uniform(SMALLEST, LARGEST) / 2
    side = int(2 * radius) + 5
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    waves = sum(rng.uniform(0, 0.12) * np.cos(k * np.arctan2(y, x) + rng.uniform(0, 6)) for k in (2, 3, 5))
    return np.hypot(y, x) < radius * (1 - 0.15 + waves)
