# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The made categories are what anomalib's MVTecAD datamodule reads, and hold what they are made for."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from anomalib.data import MVTecAD

from anomalib_diffusionad.data.made import (
    cracked_surface,
    large_surface,
    make_cracked_surface,
    make_large_surface,
    make_turning_part,
    turning_part,
)
from anomalib_diffusionad.data.made.drawing import SIZE

MAKERS = {make_turning_part: turning_part.KINDS, make_cracked_surface: cracked_surface.KINDS}
DEFECTS = [(turning_part.draw_part, kind) for kind in turning_part.KINDS] + [
    (cracked_surface.draw_surface, kind) for kind in cracked_surface.KINDS
]
makers = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


@makers
def test_layout_is_mvtec_ads(make: Callable, tmp_path: Path) -> None:
    folder = make(tmp_path, train=2, good=2, defects=2)
    assert folder == tmp_path / make.__name__.removeprefix("make_")
    datamodule = MVTecAD(tmp_path, folder.name, num_workers=0, val_split_mode="none")
    datamodule.setup()
    assert len(datamodule.train_data) == 2
    assert len(datamodule.test_data) == 2 + 2 * len(MAKERS[make])
    assert {path.name for path in (folder / "test").iterdir()} == {"good", *MAKERS[make]}
    for item in datamodule.test_data:
        assert item.image.shape == (3, SIZE, SIZE)
        assert item.gt_mask.shape[-2:] == (SIZE, SIZE)
        assert bool(item.gt_mask.any()) == bool(item.gt_label)


@makers
def test_same_seed_same_images(make: Callable, tmp_path: Path) -> None:
    first, same, other = (
        {
            path.relative_to(folder): path.read_bytes()
            for folder in [make(tmp_path / name, train=1, good=1, defects=1, seed=seed)]
            for path in folder.rglob("*.png")
        }
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == same != other
    assert len(set(first.values())) == len(first)


@pytest.mark.parametrize(("draw", "kind"), DEFECTS, ids=[kind for _, kind in DEFECTS])
def test_defects_are_small_and_can_be_seen(draw: Callable, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image with and without its defect; what the defect draws at random comes from numbers of its own."""
    module = turning_part if draw is turning_part.draw_part else cracked_surface
    for seed in range(4):
        with monkeypatch.context() as patch:
            for name in ("_nick", "_burr", "_dent", "_crack"):
                if hasattr(module, name):
                    patch.setattr(module, name, with_own_numbers(getattr(module, name)))
            defective, mask = draw(Numbers(seed), kind)
        normal, nothing = draw(Numbers(seed), None)
        change = np.abs(defective - normal).mean(axis=2)
        assert not nothing.any()
        assert 0.0005 < mask.mean() < 0.04
        assert change[mask].mean() > 0.03
        assert change[mask].mean() > 10 * change[~mask].mean()


class Numbers:
    """A generator whose ``integers`` are drawn apart: how often they are drawn depends on the defect."""

    def __init__(self, seed: int) -> None:
        self.rng, self.apart = np.random.default_rng(seed), np.random.default_rng(seed + 100)

    def integers(self, *given: object) -> np.integer:
        return self.apart.integers(*given)

    def __getattr__(self, name: str) -> object:
        return getattr(self.rng, name)


def with_own_numbers(draw: Callable) -> Callable:
    def drawn(*args: object, **kwargs: object) -> object:
        args = [np.random.default_rng(7) if isinstance(each, Numbers) else each for each in args]
        return draw(*args, **kwargs)

    return drawn


def test_cracks_are_thin() -> None:
    for seed in range(5):
        _, mask = cracked_surface.draw_surface(np.random.default_rng(seed), "crack")
        # where a crack folds back on itself its mask is wider
        assert np.percentile(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)[mask], 99) <= 3


def test_the_part_turns() -> None:
    """Its long axis points anywhere, and it keeps its size and stays in the image."""
    angles, areas = [], []
    for seed in range(12):
        image, _ = turning_part.draw_part(np.random.default_rng(seed))
        part = cv2.GaussianBlur(image.mean(axis=2), (0, 0), 2) > 0.38
        assert not part[[0, -1]].any()
        assert not part[:, [0, -1]].any()
        y, x = np.nonzero(part)
        (xx, xy), (_, yy) = np.cov(x, y)
        angles.append(0.5 * np.arctan2(2 * xy, xx - yy))
        areas.append(part.sum())
    turned = np.sort(np.mod(angles, np.pi))
    assert np.diff(turned, append=turned[0] + np.pi).max() < 1
    assert np.std(areas) < 0.1 * np.mean(areas)


@makers
@pytest.mark.parametrize("name", ["train", "good", "defects"])
def test_numbers_out_of_range_are_named(make: Callable, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 0"):
        make(tmp_path, **{name: -1})


def test_large_surfaces_have_small_defects(tmp_path: Path) -> None:
    folder = make_large_surface(tmp_path, train=1, good=1, defects=2, size=(300, 500))
    datamodule = MVTecAD(tmp_path, folder.name, num_workers=0, val_split_mode="none")
    datamodule.setup()
    assert (len(datamodule.train_data), len(datamodule.test_data)) == (1, 5)
    for item in datamodule.test_data:
        assert item.image.shape == (3, 300, 500)
        mask = np.asarray(item.gt_mask, np.uint8).squeeze()
        assert mask.any() == bool(item.gt_label)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(mask)
        for box in boxes[1:]:
            assert 5 <= max(box[2:4]) <= 2 * large_surface.LARGEST
            assert box[4] < 2 * large_surface.LARGEST**2
