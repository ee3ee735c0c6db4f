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


def test_each_item_is_turned_in_its_own_way() -> None:
    values = torch.arange(4.0).view(1, 1, 2, 2).expand(100, 2, -1, -1)
    turned = turn_each(values, torch.Generator().manual_seed(0))
    assert len({tuple(item[0].flatten().tolist()) for item in turned}) == 8
    assert torch.equal(turned[:, 0], turned[:, 1])
