# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Turning and flipping of images and their masks."""

import torch

from anomalib_diffusionad.training.symmetries import turn, turn_each


def test_turning_moves_image_and_mask_alike_in_all_eight_ways() -> None:
    values = torch.arange(4.0).view(1, 1, 2, 2).expand(-1, 7, -1, -1)
    generator = torch.Generator().manual_seed(0)
    seen = {tuple(turn(values, generator)[0, channel].flatten().tolist()) for channel in (0, 6) for _ in range(100)}
    assert len(seen) == 8
    turned = turn(values, generator)
    assert torch.equal(turned[:, 0], turned[:, 6])


def test_each_item_is_turned_in_its_own_way_half_of_them_by_any_angle() -> None:
    rows, columns = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    pointer = ((rows - 16).abs() <= 1) & (columns >= 16) & (columns < 24)
    values = (0.2 + 0.6 * pointer).expand(200, 2, -1, -1)
    turned = turn_each(values, torch.Generator().manual_seed(0))
    assert torch.equal(turned[:, 0], turned[:, 1])
    weight = turned[:, 0] - 0.2
    assert weight.min() > -0.2
    assert weight.sum(dim=(1, 2)).std() < 0.03 * weight.sum(dim=(1, 2)).mean()  # nothing is lost
    down, right = ((weight * place).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)) - 16 for place in (rows, columns))
    torch.testing.assert_close(torch.hypot(down, right), torch.full((200,), 3.5), rtol=0, atol=0.3)
    angle = torch.rad2deg(torch.atan2(down, right))
    upright = (angle.remainder(90) < 0.5) | (angle.remainder(90) > 89.5)
    assert 80 < int(upright.sum()) < 120
    assert {int(quarter) for quarter in angle[upright].div(90).round().remainder(4)} == {0, 1, 2, 3}
    assert angle[~upright].remainder(90).max() - angle[~upright].remainder(90).min() > 80


def test_rectangles_keep_their_shape_and_what_is_round_stays_round() -> None:
    rows, columns = torch.meshgrid(torch.arange(33.0), torch.arange(65.0), indexing="ij")
    disc = ((rows - 16) ** 2 + (columns - 32) ** 2 < 100).float()
    generator = torch.Generator().manual_seed(0)
    turned = turn_each(disc.expand(50, 1, -1, -1), generator)
    assert turned.shape == (50, 1, 33, 65)
    assert (turned - disc).abs().mean() < 0.01
    corners = torch.arange(6.0).view(1, 1, 2, 3)
    assert len({tuple(turn(corners, generator).flatten().tolist()) for _ in range(100)}) == 4


def test_turns_do_not_depend_on_the_precision_of_the_training() -> None:
    values = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = turn_each(values, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(turn_each(values, torch.Generator().manual_seed(1)), expected)
