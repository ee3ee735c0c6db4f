# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The demo data is what anomalib's MVTecAD datamodule reads, and its masks are where the defects are."""

from pathlib import Path

import numpy as np
import pytest
from anomalib.data import MVTecAD
from PIL import Image
from skimage import data as photographs

from anomalib_diffusionad.data.demo import CATEGORIES, CROP, DEFECTS, SOURCES, make_demo_data


@pytest.mark.parametrize("category", CATEGORIES)
def test_layout_is_mvtec_ads(tmp_path: Path, category: str) -> None:
    make_demo_data(tmp_path, category, train=3, good=2, defects=2)
    datamodule = MVTecAD(tmp_path, category, num_workers=0, val_split_mode="none")
    datamodule.setup()
    assert len(datamodule.train_data) == 3
    assert len(datamodule.test_data) == 2 + 2 * len(DEFECTS)
    for item in datamodule.test_data:
        assert item.image.shape == (3, CROP, CROP)
        assert bool(item.gt_mask.any()) == bool(item.gt_label)
    assert len(list((tmp_path / "textures").rglob("*.png"))) == 10 * len(SOURCES)


def test_same_seed_same_images(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_demo_data(tmp_path / name, "gravel", train=1, good=1, defects=1, seed=seed)
    first, same, other = (
        [path.read_bytes() for path in sorted((tmp_path / name / "gravel").rglob("*.png"))] for name in "abc"
    )
    assert first == same != other


@pytest.mark.parametrize("kind", DEFECTS)
def test_defects_change_the_image_inside_their_mask(kind: str) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:CROP, :CROP]
    image = np.repeat((0.5 + 0.4 * np.sin(x / 3 + y / 9))[..., None], 3, axis=2)
    for _ in range(5):
        defect, mask = DEFECTS[kind](image, rng)
        change = np.abs(defect - image).max(axis=2)
        assert 0.005 < mask.mean() < 0.8
        assert change[mask].mean() > 10 * change[~mask].mean()


def test_unknown_category_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="brick, grass, gravel"):
        make_demo_data(tmp_path, "marble")


def test_test_crops_do_not_overlap_training_crops(tmp_path: Path) -> None:
    """They come from disjoint parts of the photograph."""
    folder = make_demo_data(tmp_path, "brick", train=0, good=4, defects=0)
    photograph = np.asarray(photographs.brick())
    for path in (folder / "test" / "good").iterdir():
        crop = np.asarray(Image.open(path))[..., 0]
        rows, columns = np.nonzero(photograph[: 512 - CROP + 1, : 512 - CROP + 1] == crop[0, 0])
        places = [
            c for r, c in zip(rows, columns, strict=True) if (photograph[r : r + CROP, c : c + CROP] == crop).all()
        ]
        assert places
        assert min(places) >= 0.34 * 512 - 1
        assert max(places) + CROP <= 0.66 * 512 + 1
