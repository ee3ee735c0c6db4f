# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Masks lie as their images do, whatever these went through, and thin objects stay."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import ImageItem
from torch import nn
from torch.utils.data import Dataset, Subset
from torchvision.transforms import v2

from anomalib_diffusionad.data.geometry import Geometry, moves_at_random, origin_of

from ..conftest import make_datamodule, write_folder


def rectangle(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 4 : height // 2, width // 2 : width * 7 // 8] = True
    return mask


@pytest.mark.parametrize(
    "steps",
    [
        [v2.Resize((64, 64))],
        [v2.Resize((96, 96)), v2.CenterCrop(64)],
        [v2.Resize(64), v2.CenterCrop(64)],
        [v2.CenterCrop(64)],
        [v2.Pad(8), v2.Resize((64, 64))],
        [v2.Resize((64, 64)), v2.RandomHorizontalFlip(p=1.0)],
    ],
    ids=["stretch", "crop", "short side", "middle", "pad", "flip"],
)
@pytest.mark.parametrize("size", [(128, 128), (100, 240), (50, 40)])
def test_a_mask_lies_as_its_image(steps: list[v2.Transform], size: tuple[int, int]) -> None:
    mask = rectangle(*size)
    image = torch.from_numpy(mask).float().expand(3, -1, -1)
    expected = v2.Compose(steps)(image)[0].numpy() > 0.5
    laid = Geometry(*steps).lay(mask, size)
    assert laid.shape == (64, 64)
    assert (laid != expected).mean() < 0.025
    # a mask of another size than its image's is stretched over it first
    larger = mask.repeat(3, axis=0).repeat(2, axis=1)
    assert np.array_equal(Geometry(*steps).lay(larger, size), laid)


@pytest.mark.parametrize("thickness", [1, 3, 9])
@pytest.mark.parametrize("side", [300, 1024])
def test_thin_objects_stay_whole(thickness: int, side: int) -> None:
    """An upright and a slanted bar: none of their rows is lost."""
    mask, slanted = np.zeros((2, side, side), dtype=bool)
    mask[:, side // 3 : side // 3 + thickness] = True
    for row in range(side):
        slanted[row, (start := side // 4 + row // 3) : start + thickness] = True
    for one in (mask, slanted):
        laid = Geometry(v2.Resize((64, 64))).lay(one, one.shape)
        assert laid.any(axis=1).all()
        assert laid.sum(axis=1).max() <= 2 + thickness * 64 // side


def test_large_objects_become_neither_thicker_nor_thinner() -> None:
    y, x = np.mgrid[:1000, :1000] - 499.5
    disc = x**2 + y**2 < 300**2
    laid = Geometry(v2.Resize((64, 64))).lay(disc, disc.shape)
    assert laid.mean() == pytest.approx(disc.mean(), rel=0.02)
    assert np.array_equal(laid, laid[::-1])
    assert np.array_equal(laid, laid[:, ::-1])


class Turned(nn.Module):
    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        turns = int(torch.randint(4, ()))
        return tuple(value.rot90(turns, (-2, -1)) for value in values)


MOVING: dict[str, Callable[[], nn.Module]] = {
    "flip": v2.RandomHorizontalFlip,
    "rotation": lambda: v2.RandomRotation(10),
    "crop": lambda: v2.RandomResizedCrop(64),
    "affine": lambda: v2.RandomAffine(5),
    "perspective": lambda: v2.RandomPerspective(p=0.01),
    "elastic": v2.ElasticTransform,
    "rarely": lambda: v2.RandomApply([v2.RandomRotation(10)], p=0.01),
    "one of many": lambda: v2.RandomChoice([v2.ColorJitter(0.1)] * 9 + [v2.CenterCrop(16)]),
    "inside": lambda: v2.Compose([v2.ColorJitter(0.1), v2.Compose([v2.RandomVerticalFlip(p=0.1)])]),
    "takes no mask": v2.RandAugment,
    "own": Turned,
    "of images alone": lambda: torch.nn.Upsample(32),
}
STILL: dict[str, Callable[[], nn.Module]] = {
    "colours": lambda: v2.ColorJitter(0.3, 0.3, 0.3, 0.1),
    "blur": lambda: v2.GaussianBlur(3),
    "noise": v2.GaussianNoise,
    "grey": v2.RandomGrayscale,
    "sharpness": lambda: v2.RandomAdjustSharpness(2),
    "rarely": lambda: v2.RandomApply([v2.ColorJitter(0.3)], p=0.5),
    "resize": lambda: v2.Resize((32, 32)),
    "crop": lambda: v2.Compose([v2.Resize(80), v2.CenterCrop(64)]),
    "erasing": lambda: v2.RandomErasing(p=0.5),
}


@pytest.mark.parametrize("name", MOVING)
def test_what_moves_pixels_at_random(name: str) -> None:
    assert moves_at_random(MOVING[name]())


@pytest.mark.parametrize("name", STILL)
def test_what_leaves_pixels_where_they_are_or_moves_all_alike(name: str) -> None:
    state = torch.get_rng_state()
    assert not moves_at_random(STILL[name]())
    assert torch.equal(state, torch.get_rng_state())


def test_where_images_come_from(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    datamodule = make_datamodule(folder, train_augmentations=v2.CenterCrop(60))
    datamodule.setup()
    origin = origin_of(datamodule.train_data, v2.Resize((32, 32)))
    assert [Path(path).name for path in origin.paths] == [f"{number}.png" for number in range(8)]
    assert origin.geometry is not None
    assert origin.geometry.size(64, 64) == (32, 32)
    frame = np.ones((64, 64), dtype=bool)
    frame[2:-2, 2:-2] = False  # what the crop leaves out
    assert not origin.geometry.lay(frame, (64, 64)).any()
    assert origin_of(Subset(datamodule.train_data, [3, 1]), None).paths == [origin.paths[3], origin.paths[1]]


class Camera(Dataset):
    """Images that never were in a file."""

    def __init__(self, count: int = 4, size: int = 64) -> None:
        self.image = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, number: int) -> ImageItem:
        return ImageItem(image=self.image[number])


def test_where_it_is_not_known_how_images_lie(tmp_path: Path) -> None:
    assert "not known" in origin_of(Camera(), None).problem
    datamodule = make_datamodule(write_folder(tmp_path / "data"), train_augmentations=v2.RandomRotation(5))
    datamodule.setup()
    origin = origin_of(datamodule.train_data, None)
    assert len(origin.paths) == 8
    assert origin.geometry is None
    assert "train_augmentations" in origin.problem


def test_images_of_different_sizes_that_are_stretched_where_a_batch_is_put_together(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", normal=3)
    v2.functional.to_pil_image(torch.rand(3, 80, 90)).save(folder / "good" / "0.png")
    datamodule = make_datamodule(folder)
    datamodule.setup()
    assert "different sizes" in origin_of(datamodule.train_data, v2.CenterCrop(64)).problem
    datamodule.train_data.augmentations = v2.Resize((64, 64))
    assert origin_of(datamodule.train_data, v2.CenterCrop(64)).geometry is not None
