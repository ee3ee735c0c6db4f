# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ten operations and the patch shuffle."""

import pytest
import torch

from anomalib_diffusionad.synthesis import appearance
from anomalib_diffusionad.synthesis.appearance import GRID, OPERATIONS, augment, shuffle_patches


def photo(count: int = 4, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def test_there_are_ten_operations_and_each_changes_a_photo_within_bounds() -> None:
    assert len(OPERATIONS) == 10
    for operation in OPERATIONS:
        image = photo()
        result = operation(image, appearance._uniform(len(image), image.device, torch.Generator().manual_seed(1)))
        assert result.shape == image.shape, operation
        assert result.isfinite().all(), operation
        assert (result.clamp(0, 1) - image).abs().flatten(1).mean(dim=1).min() > 1e-4, operation


def test_each_image_gets_three_different_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = torch.zeros(200)
    tally: list[int] = []

    def count(image: torch.Tensor, _uniform: object) -> torch.Tensor:
        tally.append(len(image))
        return image + 0.01

    monkeypatch.setattr(appearance, "OPERATIONS", (count,) * 10)
    result = augment(torch.zeros(200, 3, 8, 8), torch.Generator().manual_seed(0))
    counts = (result[:, 0, 0, 0] / 0.01).round()
    assert (counts == 3).all()
    assert len(tally) == 10
    assert min(tally) > 200 * 0.3 * 0.6


def test_augmentation_stays_in_bounds_leaves_its_input_and_repeats() -> None:
    image = photo(16)
    before = image.clone()
    one, same, other = (augment(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(image, before)
    assert 0 <= one.min() <= one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_shuffling_moves_whole_patches_and_loses_none() -> None:
    size = 64
    patch = size // GRID
    number = torch.arange(GRID * GRID, dtype=torch.float32).reshape(1, 1, GRID, GRID)
    image = number.repeat_interleave(patch, 2).repeat_interleave(patch, 3).expand(5, 3, size, size)
    result = shuffle_patches(image, torch.Generator().manual_seed(0))
    corners = result[:, :, ::patch, ::patch]
    rebuilt = corners.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    assert torch.equal(rebuilt, result)
    for row in corners[:, 0].flatten(1):
        assert torch.equal(row.sort().values, number.flatten())
    assert not torch.equal(corners[0], corners[1])
    assert not torch.equal(corners[0], number[0].expand(3, -1, -1))


@pytest.mark.parametrize("size", [64, 96])
def test_shuffling_keeps_the_pixels_inside_a_patch_in_place(size: int) -> None:
    image = torch.rand(2, 3, size, size)
    result = shuffle_patches(image, torch.Generator().manual_seed(3))
    patch = size // GRID
    cut = lambda x: x.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # noqa: E731
    before, after = cut(image), cut(result)
    for row in range(2):
        matches = (after[row][:, None] == before[row][None]).flatten(2).all(dim=2)
        assert (matches.sum(dim=0) == 1).all()
        assert (matches.sum(dim=1) == 1).all()
