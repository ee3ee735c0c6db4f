# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ten operations and the patch shuffle."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from anomalib_diffusionad.synthesis import appearance
from anomalib_diffusionad.synthesis.appearance import CURVE_OPERATIONS, GRID, PIXEL_OPERATIONS, augment, shuffle_patches


def photo(count: int = 4, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    photo = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return (30 + photo * 190).round().byte()


def draw(count: int, seed: int = 1) -> appearance.Uniform:
    return appearance._uniform(count, torch.device("cpu"), torch.Generator().manual_seed(seed))


def curves_of(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    identity = torch.linspace(0, 1, 256).expand(len(image), 3, 256).clone()
    return identity, appearance._histogram(image)


def test_there_are_ten_operations() -> None:
    assert len(CURVE_OPERATIONS) + len(PIXEL_OPERATIONS) == 10


@pytest.mark.parametrize("operation", CURVE_OPERATIONS)
def test_curves_change_a_photo(operation: appearance.CurveOperation) -> None:
    image = photo()
    result = appearance._look_up(image, operation(*curves_of(image), draw(4)))
    assert result.isfinite().all()
    assert (result.clamp(0, 1) - image / 255).abs().flatten(1).mean(dim=1).min() > 1e-4


@pytest.mark.parametrize("operation", PIXEL_OPERATIONS)
def test_pixel_operations_change_a_photo(operation: appearance.PixelOperation) -> None:
    image = photo() / 255
    result = operation(image, draw(4))
    assert result.shape == image.shape
    assert result.isfinite().all()
    assert (result.clamp(0, 1) - image).abs().flatten(1).mean(dim=1).min() > 1e-4


def test_look_up_of_the_identity_is_the_image() -> None:
    image = photo()
    torch.testing.assert_close(appearance._look_up(image, curves_of(image)[0]), image / 255, rtol=0, atol=1e-6)


def test_histogram_counts_each_channel() -> None:
    image = photo()
    for row in range(len(image)):
        for channel in range(3):
            expected = torch.bincount(image[row, channel].flatten().long(), minlength=256)
            assert torch.equal(curves_of(image)[1][row, channel].long(), expected)


def test_equalize_and_autocontrast_are_torchvisions() -> None:
    image = torch.cat([photo(), torch.full((1, 3, 64, 64), 77, dtype=torch.uint8)])
    identity, histogram = curves_of(image)
    for operation, reference in ((appearance._equalize, tv.equalize), (appearance._autocontrast, tv.autocontrast)):
        result = appearance._look_up(image, operation(identity, histogram, draw(5)))
        assert (result * 255 - reference(image).float()).abs().max() <= 1, operation


def test_curves_compose_as_operations_on_pixels() -> None:
    """Equalizing the inverted photo by way of its curve is equalizing the inverted photo."""
    image = photo()
    identity, histogram = curves_of(image)
    inverted = appearance._invert(identity, histogram, draw(4))
    result = appearance._look_up(image, appearance._equalize(inverted, histogram, draw(4)))
    assert (result * 255 - tv.equalize(tv.invert(image)).float()).abs().max() <= 1


def test_hue_turns_colours_and_leaves_grey() -> None:
    grey = torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1)
    torch.testing.assert_close(appearance._hue_and_saturation(grey, draw(4)), grey, rtol=0, atol=1e-5)
    colour = torch.tensor([0.8, 0.3, 0.2])[None, :, None, None].expand(4, -1, 8, 8)
    result = appearance._hue_and_saturation(colour, draw(4))
    torch.testing.assert_close(result.mean(dim=1), colour.mean(dim=1), rtol=0, atol=1e-5)
    assert (result - colour).abs().amax(dim=(1, 2, 3)).min() > 0.02


def test_each_image_gets_three_different_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    tally: list[int] = []

    def darken(curve: torch.Tensor, _histogram: torch.Tensor, _uniform: object) -> torch.Tensor:
        tally.append(len(curve))
        return curve - 8 / 255

    def darken_pixels(image: torch.Tensor, _uniform: object) -> torch.Tensor:
        return darken(image, image, None)

    monkeypatch.setattr(appearance, "CURVE_OPERATIONS", (darken,) * 7)
    monkeypatch.setattr(appearance, "PIXEL_OPERATIONS", (darken_pixels,) * 3)
    image = torch.full((200, 3, 8, 8), 128, dtype=torch.uint8)
    result = augment(image, torch.Generator().manual_seed(0))
    torch.testing.assert_close(result, torch.full_like(result, (128 - 3 * 8) / 255))
    assert len(tally) == 10
    assert min(tally) > 200 * 0.3 * 0.6


def test_augmentation_stays_in_bounds_leaves_its_input_and_repeats() -> None:
    image = photo(16)
    before = image.clone()
    one, same, other = (augment(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(image, before)
    assert one.dtype == torch.float32
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
