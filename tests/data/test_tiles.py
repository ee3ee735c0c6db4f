# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Tiles cover an image, blend without seams and need little memory."""

import numpy as np
import pytest
import torch

from anomalib_diffusionad.data import tiles
from anomalib_diffusionad.data.tiles import inside, slide, starts, summed_weights, window


@pytest.mark.parametrize("length", [32, 33, 40, 64, 100, 257])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
def test_tiles_reach_from_end_to_end_and_overlap_enough(length: int, overlap: float) -> None:
    first = starts(length, 32, overlap)
    assert first[0] == 0
    assert first[-1] == length - 32
    assert (np.diff(first) <= max(1, 32 * (1 - overlap)) + 0.5).all()
    assert (summed_weights(length, 32, overlap) > 0).all()


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(2, 3, 100, 70), (1, 3, 32, 64), (1, 3, 20, 90), (1, 3, 10, 10)])
def test_what_each_tile_sees_alike_stays_as_it_is(
    overlap: float, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "PIXELS_AT_ONCE", {"cpu": 3 * 32 * 64})
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []

    def look(part: torch.Tensor) -> torch.Tensor:
        assert part.shape[1:] == (3, 32, 64)
        seen.append(len(part))
        return part[:, :2] * 2

    torch.testing.assert_close(slide(look, image, (32, 64), overlap), image[:, :2] * 2)
    assert max(seen) <= 3


def test_tiles_that_disagree_are_blended_without_a_seam() -> None:
    """Each tile says something else; no step from one pixel to the next is larger than a smooth ramp's."""
    values = iter(torch.linspace(0, 1, 100))
    found = slide(
        lambda part: torch.stack([torch.full_like(one[:1], next(values)) for one in part]),
        torch.zeros(1, 3, 128, 128),
        32,
        0.5,
    )
    field = found[0, 0]
    steps = torch.cat([field.diff(dim=0).abs().flatten(), field.diff(dim=1).abs().flatten()])
    assert steps.max() < 2 * np.pi / 2 / 16 * 9 / 49  # the steepest of the ramp, between tiles nine apart


def test_weights_are_whole_in_the_middle_and_small_at_the_edge() -> None:
    weight = window(64, 0.25)
    assert weight[16:48] == pytest.approx(1)
    assert 0 < weight[0] < 0.01
    assert np.array_equal(weight, weight[::-1])
    assert (np.diff(weight[:16]) > 0).all()


def test_a_window_is_moved_into_the_image() -> None:
    assert [inside(start, 10, 25) for start in (-3, 0, 7, 15, 16, 40)] == [0, 0, 7, 15, 15, 15]
    assert inside(4, 10, 8) == 0
