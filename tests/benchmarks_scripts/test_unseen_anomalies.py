# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalies that the training does not make lie where their masks say."""

import importlib
from types import ModuleType

import numpy as np
import pytest

from ..conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"
KINDS = ["stain", "paste", "twist", "foreign part", "scratch"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("unseen_anomalies")


@pytest.mark.parametrize("kind", KINDS)
def test_an_anomaly_changes_what_its_mask_says(script: ModuleType, kind: str) -> None:
    random = np.random.default_rng(1)
    image, foreign = random.uniform(size=(2, 96, 96, 3)).astype(np.float32)
    foreground = np.zeros((96, 96), dtype=bool)
    foreground[30:70, 30:70] = True
    for _ in range(10):
        result, mask = script.KINDS[kind](script.Canvas(image, foreground, foreign, random))
        change = np.abs(result - image).mean(axis=-1)
        assert result.shape == image.shape
        assert 5 < mask.sum() < 0.3 * mask.size
        assert change[mask].mean() > 0.05
        assert change[~mask].mean() < 0.01
        assert (mask & foreground).any()


def test_smoothing_fills_a_spotty_map(script: ModuleType) -> None:
    random = np.random.default_rng(0)
    mask = np.zeros((4, 64, 64), dtype=bool)
    mask[2:, 20:40, 20:40] = True
    maps = np.where(mask, random.random(mask.shape) < 0.3, random.random(mask.shape) < 0.02).astype(np.float32)
    plain, smooth = (script.score(maps, mask, sigma, top=50) for sigma in (0.0, 2.0))
    assert plain["pixel_auroc"] < 0.7
    assert smooth["pixel_auroc"] > 0.95
