# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The classical foreground: right on clear objects, silent on everything else."""

import numpy as np
import pytest
from PIL import Image

from anomalib_diffusionad.synthesis.auto_foreground import find_object
from tests.conftest import SHARED

from .objects import draw_object, draw_texture


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("size", [64, 256, 400])
@pytest.mark.parametrize(
    ("background", "colour"),
    [
        ((60, 60, 60), (200, 160, 90)),
        ((230, 230, 225), (40, 45, 60)),
        ((40, 40, 40), (190, 190, 190)),
        ((200, 200, 200), (70, 70, 70)),
        ((90, 120, 90), (150, 80, 80)),
    ],
    ids=["colour on dark", "dark on light", "grey on dark", "grey on light", "hue"],
)
def test_an_object_is_found(size: int, background: tuple[int, int, int], colour: tuple[int, int, int]) -> None:
    image, truth = draw_object(size, background, colour)
    mask = find_object(image)
    assert mask is not None
    assert mask.dtype == bool
    assert overlap(mask, truth) > 0.9


def test_an_object_on_a_grainy_background_is_found() -> None:
    image, truth = draw_object(256, noise=25)
    assert overlap(find_object(image), truth) > 0.9


def test_holes_and_spots_like_the_background_belong_to_the_object() -> None:
    image, truth = draw_object(256)
    image[100:115, 110:125] = image[:15, :15]
    assert overlap(find_object(image), truth) > 0.9


def test_several_objects_are_found_and_crumbs_are_not() -> None:
    small, truth = draw_object(128)
    image, mask = np.hstack([small, small]), np.hstack([truth, truth])
    image[4:8, 4:8] = 255
    found = find_object(image)
    assert overlap(found, mask) > 0.85
    assert not found[:12, :12].any()


def test_images_may_be_oblong() -> None:
    image, truth = draw_object(200)
    assert overlap(find_object(image[20:150]), truth[20:150]) > 0.9


@pytest.mark.parametrize("seed", range(4))
def test_a_texture_gives_nothing(seed: int) -> None:
    assert find_object(draw_texture(256, seed)) is None


@pytest.mark.parametrize(
    "image",
    [
        np.full((100, 100, 3), 128, dtype=np.uint8),
        np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8),
        np.broadcast_to(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], (200, 200, 3)).copy(),
        np.zeros((1, 1, 3), dtype=np.uint8),
        np.where((np.mgrid[:200, :200].sum(0) // 25 % 2)[..., None] > 0, 200, 60).repeat(3, 2).astype(np.uint8),
    ],
    ids=["plain", "noise", "shading", "one pixel", "stripes"],
)
def test_nothing_is_found_where_there_is_no_object(image: np.ndarray) -> None:
    assert find_object(image) is None


def test_objects_that_fill_the_image_or_are_tiny_give_nothing() -> None:
    image, _ = draw_object(256)
    assert find_object(image[64:166, 64:192]) is None
    tiny = np.full((256, 256, 3), 60, dtype=np.uint8)
    tiny[120:130, 120:130] = 200
    assert find_object(tiny) is None


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the development data")
@pytest.mark.parametrize(("category", "low", "high"), [("cookie", 0.25, 0.36), ("bottle", 0.6, 0.67)])
def test_objects_of_the_development_data_are_found(category: str, low: float, high: float) -> None:
    for path in sorted((SHARED / "data" / category / "train" / "good").iterdir())[::10]:
        mask = find_object(np.asarray(Image.open(path).convert("RGB")))
        assert mask is not None, path
        assert low < mask.mean() < high, path


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the development data")
def test_magnetic_tiles_give_nothing() -> None:
    for path in sorted((SHARED / "data" / "magnetic_tile" / "train" / "good").iterdir())[::10]:
        assert find_object(np.asarray(Image.open(path).convert("RGB"))) is None, path
