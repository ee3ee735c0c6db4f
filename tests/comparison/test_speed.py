# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

import time

import pytest
import torch
from torch import nn

from anomalib_diffusionad.comparison.speed import (
    MEBIBYTE,
    PeakMemory,
    measure_size,
    measure_speed,
    settle_memory,
)

CPU = torch.device("cpu")


class Sleeper(nn.Module):
    """Takes 4 ms a batch and 1 ms an image, and no longer for batches of 4 than it must."""

    def __init__(self, most=4):
        super().__init__()
        self.most = most
        self.batches = []

    def forward(self, image):
        count = len(image)
        self.batches.append(count)
        time.sleep(0.004 * -(-count // self.most) + 0.001 * count)


def test_latency_and_best_batch():
    model = Sleeper()
    speed = measure_speed(model, 8, CPU, seconds=0.01)
    assert 5 <= speed["latency_ms"] < 8
    assert speed["best_batch"] == 4
    assert 350 < speed["throughput"] <= 500
    assert not model.training
    assert model.batches[:3] == [1, 1, 1]


def test_out_of_memory_ends_the_search():
    class Small(Sleeper):
        def forward(self, image):
            if len(image) > 2:
                raise torch.OutOfMemoryError
            super().forward(image)

    assert measure_speed(Small(), 8, CPU, seconds=0.01)["best_batch"] == 2


def test_size_counts_parameters_and_buffers():
    model = nn.BatchNorm1d(100)
    size = measure_size(model)
    assert size["parameters"] == 200
    assert size["model_mb"] == pytest.approx((400 * 4 + 8) / MEBIBYTE)


def test_peak_memory_of_the_process():
    base = settle_memory(CPU)
    with PeakMemory(CPU, base, interval=0.001) as memory:
        block = torch.ones(64 * MEBIBYTE, dtype=torch.uint8)
        time.sleep(0.05)
        del block
    assert 60 < memory.peak_mb < 120
