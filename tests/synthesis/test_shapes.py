# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Perlin shapes: the same noise as the textbook's, and the statistics of the original's recipe."""

import math

import numpy as np
import pytest
import torch

from anomalib_diffusionad.synthesis.shapes import PerlinNoise, perlin_masks

from . import reference, statistics
from .statistics import disc


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("scale", [(1, 1), (4, 32), (32, 2)])
def test_noise_equals_the_textbook(size: int, scale: tuple[int, int]) -> None:
    noise = PerlinNoise.draw(1, torch.Generator().manual_seed(0))
    noise = noise._replace(scale=torch.tensor([scale], dtype=torch.float32), angle=torch.zeros(1))
    rows, columns = scale
    expected = reference.perlin(rows, columns, noise.gradient[0, : rows + 1, : columns + 1].numpy(), size)
    np.testing.assert_allclose(noise.evaluate(size)[0], expected, rtol=0, atol=1e-5)


def test_rotation_turns_the_noise_about_the_centre() -> None:
    noise = PerlinNoise.draw(1, torch.Generator().manual_seed(1))
    straight = noise._replace(angle=torch.zeros(1)).evaluate(64)[0]
    quarter = noise._replace(angle=torch.full((1,), math.pi / 2)).evaluate(64)[0]
    assert min((quarter - straight.rot90(turns)).abs().max().item() for turns in (1, 3)) < 1e-4
    eighth = noise._replace(angle=torch.full((1,), math.pi / 4)).evaluate(64)[0]
    assert not eighth[:8, :8].any()
    assert eighth[28:36, 28:36].any()


def test_scales_and_angles_cover_their_ranges_evenly() -> None:
    noise = PerlinNoise.draw(6000, torch.Generator().manual_seed(0))
    counts = torch.bincount(noise.scale.log2().long().flatten(), minlength=6)
    assert len(counts) == 6
    assert (counts / counts.sum() - 1 / 6).abs().max() < 0.02
    assert noise.angle.abs().max() <= math.pi / 2
    assert abs(noise.angle.mean()) < 0.05
    assert noise.angle.std().item() == pytest.approx(math.pi / math.sqrt(12), rel=0.03)


@pytest.mark.parametrize(("size", "count", "radius"), [(64, 800, 1.0), (64, 800, 0.25), (256, 60, 1.0)])
def test_area_and_components_match_the_originals_recipe(size: int, count: int, radius: float) -> None:
    """As ``python -m tests.synthesis.statistics`` does with more images; here within three standard deviations."""
    for name, (ours, theirs) in statistics.compare(size, count, radius, seed=0).items():
        assert abs(ours - theirs) < max(0.02, 3 * (0.5 / count) ** 0.5), name


def test_shapes_meet_even_a_small_foreground() -> None:
    foreground = disc(500, 64, 0.08)
    masks = perlin_masks(foreground, generator=torch.Generator().manual_seed(0)) & foreground
    assert masks.flatten(1).any(dim=1).float().mean() > 0.97


def test_an_empty_foreground_stays_empty() -> None:
    foreground = torch.zeros(4, 1, 64, 64, dtype=torch.bool)
    assert not (perlin_masks(foreground) & foreground).any()


def test_a_seed_gives_the_same_shapes() -> None:
    foreground = torch.ones(4, 1, 64, 64, dtype=torch.bool)
    one, same, other = (perlin_masks(foreground, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
