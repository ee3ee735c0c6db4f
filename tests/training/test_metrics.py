# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Regions count alike whether images are of one size or of several."""

import pytest
import torch
from anomalib import metrics as anomalib_metrics
from anomalib.data import ImageBatch
from torch import distributed

from anomalib_diffusionad.training.metrics import AUPRO

FIELDS = {"fields": ["anomaly_map", "gt_mask"]}


def batch(height: int, width: int, seed: int) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, 4:12, 4:20], mask[:, 20:24, 8:12] = True, True
    anomaly_map = torch.rand(1, 1, height, width, generator=generator) + 0.3 * mask
    return ImageBatch(image=torch.rand(1, 3, height, width), gt_mask=mask, anomaly_map=anomaly_map / 2)


def test_of_one_size_it_is_anomalibs() -> None:
    ours, theirs = AUPRO(**FIELDS), anomalib_metrics.AUPRO(**FIELDS)
    for metric in (ours, theirs):
        for seed in range(3):
            metric.update(batch(32, 40, seed))
    assert float(ours.compute()) == pytest.approx(float(theirs.compute()))


def test_processes_may_have_images_of_different_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [batch(32, 40, 0), batch(24, 50, 1), batch(40, 32, 2)]
    alone, first, second = (AUPRO(**FIELDS) for _ in range(3))
    for image in images:
        alone.update(image)
    first.update(images[0])
    first.update(images[1])
    second.update(images[2])
    other = second.preds, second.target

    def gather(into: list, own: object, group: object) -> None:
        del group
        into[:] = [own, other]

    monkeypatch.setattr(distributed, "get_world_size", lambda _: 2)
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    first._sync_dist()
    assert float(first.compute()) == pytest.approx(float(alone.compute()), abs=1e-6)


def test_an_image_in_parts_of_different_sizes_counts_as_the_whole() -> None:
    whole, parts = AUPRO(**FIELDS), AUPRO(**FIELDS)
    images = [batch(32, 40, seed) for seed in range(3)]
    for image in images:
        whole.update(image)
        for columns in (slice(0, 26), slice(26, 40)):  # no region is cut
            part = {name: getattr(image, name)[..., columns] for name in ("image", "gt_mask", "anomaly_map")}
            parts.update(ImageBatch(**part))
    assert float(parts.compute()) == pytest.approx(float(whole.compute()), abs=1e-6)
