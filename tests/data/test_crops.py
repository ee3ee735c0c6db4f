# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Crops come from everywhere that the foreground leaves, at the resolution of their file."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_diffusionad.data.crops import CropReader, choose_place, crops_an_image
from anomalib_diffusionad.data.depth import read_float


def write_places(path: Path, height: int, width: int) -> Path:
    """An image whose red says the row and whose green says the column."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(height)[:, None], np.arange(width)
    Image.fromarray(pixels).save(path)
    return path


def test_crops_are_parts_of_the_file_from_all_over_it(tmp_path: Path) -> None:
    path = write_places(tmp_path / "a.png", 100, 200)
    whole, reader = read_float(path), CropReader(32)
    torch.manual_seed(0)
    places = set()
    for _ in range(300):
        crop = reader.read(path, as_tensor=True)
        top, left = (round(float(value) * 255) for value in crop[:2, 0, 0])
        assert torch.equal(crop, whole[:, top : top + 32, left : left + 32])
        places.add((top, left))
    tops, lefts = zip(*places, strict=True)
    assert (min(tops), max(tops), min(lefts), max(lefts)) == (0, 68, 0, 168)
    assert len(places) > 200


def test_every_crop_shows_the_foreground_and_says_where_it_is(tmp_path: Path) -> None:
    path = write_places(tmp_path / "a.png", 100, 200)
    mask = np.zeros((100, 200), bool)
    mask[70:80, 150:170] = True
    reader = CropReader((32, 64))
    reader.masks = lambda _: mask[::2, ::2]  # masks may be of any size
    for _ in range(50):
        crop = reader.read(path, as_tensor=True)
        top, left = (round(float(value) * 255) for value in crop[:2, 0, 0])
        assert np.array_equal(reader.foreground.numpy(), mask[top : top + 32, left : left + 64])
        assert reader.foreground.any()
    reader.within = False  # the pixels of the crop will move
    reader.read(path, as_tensor=True)
    assert reader.foreground.shape == (32, 64)
    assert reader.foreground.all()


def test_a_single_pixel_of_foreground_is_found() -> None:
    mask = np.zeros((500, 800), bool)
    mask[3, 799] = True
    top, left = choose_place(mask.shape, (64, 64), mask)
    assert top <= 3
    assert left == 800 - 64


def test_a_small_image_is_continued(tmp_path: Path) -> None:
    path = write_places(tmp_path / "a.png", 20, 100)
    crop = CropReader(32).read(path, as_tensor=True)
    assert crop.shape == (3, 32, 32)
    assert torch.equal(crop[:, 19], crop[:, 31])


def test_decoded_files_are_kept_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_places(tmp_path / f"{number}.png", 256, 256) for number in range(8)]
    reader = CropReader(32, memory_mib=1)
    for path in paths * 2:
        reader.read(path)
    assert len(reader._kept) == 2**20 // (3 * 256 * 256)
    assert not pickle.loads(pickle.dumps(reader))._kept


def test_an_epoch_has_as_many_crops_as_lie_side_by_side(tmp_path: Path) -> None:
    paths = [write_places(tmp_path / "a.png", 100, 200), write_places(tmp_path / "b.png", 50, 100)]
    assert crops_an_image(paths, 32) == round(12_500 / 1024)
    assert crops_an_image(paths, 512) == 1
