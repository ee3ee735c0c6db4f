# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ten operations and the patch shuffle."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from anomalib_diffusionad.synthesis import appearance
from anomalib_diffusionad.synthesis.appearance import (
    COLOUR_OPERATIONS,
    GRID,
    NUM_OPERATIONS,
    ROTATION,
    SHARPNESS,
    anomalous_appearance,
)


def photo(count: int = 4, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    photo = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return (30 + photo * 190).round().byte()


def always(value: float) -> appearance.Uniform:
    return lambda _low, _high: value


def whole(
    image: torch.Tensor, *, shuffle: bool = False, seed: int = 0, operations: list[int] | None = None
) -> torch.Tensor:
    """Appearance at all pixels, as images; of the given operations if any."""
    position = torch.arange(image[0, 0].numel())
    generator = torch.Generator().manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        if operations is not None:
            patch.setattr(appearance, "_choose", lambda _: operations)
        colours = [anomalous_appearance(one, position, shuffle=shuffle, generator=generator) for one in image]
    return torch.stack(colours).view(image.shape)


def apply(operation: appearance.ColourOperation, image: torch.Tensor, value: float = 0.0) -> torch.Tensor:
    """An operation on one image, with all its pixels as the sample; levels."""
    colour = image.flatten(1) / 255
    return (operation(colour, colour, always(value)).clamp(0, 1) * 255).round().view(image.shape)


def test_there_are_ten_operations() -> None:
    assert {*range(len(COLOUR_OPERATIONS)), SHARPNESS, ROTATION} == set(range(10))


@pytest.mark.parametrize("operation", range(10))
def test_operations_change_a_photo(operation: int) -> None:
    image = photo()
    result = whole(image, operations=[operation], seed=1)
    assert result.isfinite().all()
    assert 0 <= result.min() <= result.max() <= 1
    assert (result - image / 255).abs().flatten(1).mean(dim=1).min() > 1e-4


def test_without_operations_the_image_stays() -> None:
    image = photo()
    torch.testing.assert_close(whole(image, operations=[]), image / 255, rtol=0, atol=1e-6)


def test_operations_follow_in_the_order_drawn() -> None:
    image = photo(1)
    invert, solarize = COLOUR_OPERATIONS.index(appearance._invert), COLOUR_OPERATIONS.index(appearance._solarize)
    threshold = 32 + 96 * torch.rand((), generator=torch.Generator().manual_seed(0)).item()
    once, other = whole(image, operations=[invert, solarize]), whole(image, operations=[solarize, invert])
    assert torch.equal((once * 255).round().byte(), tv.solarize(tv.invert(image), threshold))
    assert torch.equal((other * 255).round().byte(), tv.invert(tv.solarize(image, threshold)))
    assert not torch.equal(once, other)


def test_colour_operations_are_torchvisions() -> None:
    for image in [*photo(), torch.full((3, 64, 64), 77, dtype=torch.uint8)]:
        pairs = {
            "solarize": (apply(appearance._solarize, image, 100 / 255), tv.solarize(image, threshold=100)),
            "posterize": (apply(appearance._posterize, image, 5.0), tv.posterize(image, bits=3)),
            "invert": (apply(appearance._invert, image), tv.invert(image)),
            "autocontrast": (apply(appearance._autocontrast, image), tv.autocontrast(image)),
            "gamma": (apply(appearance._gamma, image, 0.7), tv.adjust_gamma(image, 0.7)),
        }
        for name, (ours, expected) in pairs.items():
            assert (ours - expected.float()).abs().max() <= 1, name


def test_equalizing_spreads_the_levels_evenly() -> None:
    """Pillow's table, but for its step of a whole number of pixels."""
    for image in photo():
        result = apply(appearance._equalize, image)
        for channel in range(3):
            level = image[channel].flatten()
            below = (level[None] < torch.arange(256)[:, None]).sum(dim=1)[level.long()]
            expected = 255 * below / (level < level.max()).sum()
            torch.testing.assert_close(result[channel].flatten(), expected, atol=1, rtol=0)
    flat = torch.full((3, 64, 64), 77, dtype=torch.uint8)
    assert torch.equal(apply(appearance._equalize, flat), flat.float())


def test_the_sample_stands_for_the_image() -> None:
    image = photo(1)
    equalize = COLOUR_OPERATIONS.index(appearance._equalize)
    exact = apply(appearance._equalize, image[0])
    assert (whole(image, operations=[equalize])[0] * 255 - exact).abs().mean() < 2


def test_sharpness_is_torchvisions() -> None:
    image = photo(1)[0]
    y, x = (grid.flatten() for grid in torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij"))
    for factor in (0.1, 1.9):
        result = 255 * appearance._sharpen(image, y, x, image.flatten(1) / 255, factor).view(image.shape)
        expected = tv.adjust_sharpness(image, factor).float()
        assert (result - expected)[:, 1:-1, 1:-1].abs().max() < 2
        assert (result - image.float())[:, 1:-1, 1:-1].abs().max() > 1


def test_hue_turns_colours_and_leaves_grey() -> None:
    grey = torch.rand(1, 50).expand(3, -1)
    torch.testing.assert_close(appearance._hue_and_saturation(grey, grey, always(0.1)), grey)
    colour = torch.tensor([0.8, 0.3, 0.2])[:, None]
    result = appearance._hue_and_saturation(colour, colour, always(0.1))
    torch.testing.assert_close(result.mean(), colour.mean())
    length = lambda c: (c - c.mean()).norm()  # noqa: E731
    torch.testing.assert_close(length(result), 1.1 * length(colour))
    cosine = ((result - result.mean()) * (colour - colour.mean())).sum() / length(result) / length(colour)
    assert cosine.acos().item() == pytest.approx(2 * math.pi * 0.1, abs=1e-4)


def test_rotation_is_torchvisions() -> None:
    image = photo(1)
    for seed in range(3):
        rotated = (whole(image, operations=[ROTATION], seed=seed) * 255).round()
        angle = 45 * (2 * torch.rand((), generator=torch.Generator().manual_seed(seed)).item() - 1)
        expected = tv.rotate(image, angle).float()
        assert (rotated - expected).abs().gt(2).float().mean() < 0.02


def test_three_different_operations_are_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    orders = [appearance._choose(generator) for _ in range(3000)]
    assert all(len(set(order)) == len(order) == NUM_OPERATIONS for order in orders)
    share = torch.bincount(torch.tensor(orders).flatten(), minlength=10) / 3000
    assert (share - 0.3).abs().max() < 0.03


def test_appearance_stays_in_bounds_leaves_its_input_and_repeats() -> None:
    image = photo(16)
    before = image.clone()
    one, same, other = (whole(image, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(image, before)
    assert one.dtype == torch.float32
    assert 0 <= one.min() <= one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_values_that_resizing_has_moved_out_of_bounds_are_clamped() -> None:
    image = photo(16) * 1.3 - 0.15  # as bicubic interpolation leaves them, and more
    for seed in range(60):
        found = whole(image, seed=seed)
        assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("shuffle", [False, True])
def test_some_pixels_are_those_of_the_whole(shuffle: bool) -> None:
    every = torch.arange(64 * 64)
    some = every[torch.rand(len(every), generator=torch.Generator().manual_seed(0)) < 0.1]
    for seed in range(10):
        full, part = (
            anomalous_appearance(photo(1)[0], position, shuffle=shuffle, generator=torch.Generator().manual_seed(seed))
            for position in (every, some)
        )
        # powers of whole vectors and of single numbers differ in the last bit
        assert ((part - full[:, some]).abs() > 1e-5).float().mean() < 0.01


def test_shuffling_moves_whole_patches_and_loses_none() -> None:
    size = 64
    patch = size // GRID
    number = torch.arange(GRID * GRID, dtype=torch.uint8).reshape(1, 1, GRID, GRID)
    image = number.repeat_interleave(patch, 2).repeat_interleave(patch, 3).expand(5, 3, size, size)
    result = (whole(image, shuffle=True, operations=[]) * 255).round()
    corners = result[:, :, ::patch, ::patch]
    rebuilt = corners.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    assert torch.equal(rebuilt, result)
    for row in corners[:, 0].flatten(1):
        assert torch.equal(row.sort().values, number.flatten().float())
    assert not torch.equal(corners[0], corners[1])
    assert not torch.equal(corners[0], number[0].float().expand(3, -1, -1))


@pytest.mark.parametrize("size", [64, 96])
def test_shuffling_keeps_the_pixels_inside_a_patch_in_place(size: int) -> None:
    image = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    result = (whole(image, shuffle=True, operations=[]) * 255).round().byte()
    patch = size // GRID
    cut = lambda x: x.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # noqa: E731
    before, after = cut(image), cut(result)
    for row in range(2):
        matches = (after[row][:, None] == before[row][None]).flatten(2).all(dim=2)
        assert (matches.sum(dim=0) == 1).all()
        assert (matches.sum(dim=1) == 1).all()
