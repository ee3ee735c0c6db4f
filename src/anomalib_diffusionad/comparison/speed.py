# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""How fast and how large a model is."""

import ctypes
import gc
import statistics
import sys
import threading
import time
from types import TracebackType

import psutil
import torch
from anomalib.models import AnomalibModule
from torch import nn
from typing_extensions import Self

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
WARM_UP, REPETITIONS = 2, 5
WORTHWHILE = 1.03  # a larger batch must be faster by this factor for a still larger one to be tried
MEBIBYTE = 2**20


def measure_speed(
    model: AnomalibModule,
    image_size: int,
    device: torch.device,
    seconds: float = 0.5,
) -> dict[str, float]:
    """Time a model from images on the device to scores and maps on the device.

    Medians over five repetitions or more, after a warm-up. Larger batches are tried until one is no faster.

    Args:
        model: Trained model.
        image_size: Height and width of the images in pixels.
        device: Where to run it.
        seconds: How long to repeat the measurement at each batch size, at least.

    Returns:
        ``latency_ms`` (one image), ``throughput`` (images a second at the best batch size) and ``best_batch``.
    """
    model = model.eval().to(device)
    best = (0.0, 1)
    latency = float("nan")
    for batch in BATCH_SIZES:
        try:
            median = _median_seconds(model, torch.rand(batch, 3, image_size, image_size, device=device), seconds)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            break
        if batch == 1:
            latency = median
        if batch / median <= WORTHWHILE * best[0]:
            break
        best = (batch / median, batch)
    return {"latency_ms": 1000 * latency, "throughput": best[0], "best_batch": best[1]}


def measure_size(model: nn.Module) -> dict[str, float]:
    """Number of ``parameters``, and ``model_mb``: MiB of parameters and buffers, a memory bank among them."""
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "model_mb": sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MEBIBYTE,
    }


class PeakMemory:
    """Context that measures how much memory work takes at its peak: ``peak_mb``, in MiB, above a base.

    On a GPU, that is the memory of tensors there. On the CPU, it is the resident memory of the process, sampled, and
    includes what the allocator does not give back at once.

    Args:
        device: The device that is used.
        base_mb: What :func:`settle_memory` returned before the work began.
        interval: Seconds between samples of the process.
    """

    def __init__(self, device: torch.device, base_mb: float = 0.0, interval: float = 0.02) -> None:
        self.device = device
        self.base_mb = base_mb
        self.interval = interval
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            self.peak_mb = torch.cuda.max_memory_allocated(self.device) / MEBIBYTE - self.base_mb
        else:
            self._stop.set()
            self._thread.join()

    def _sample(self) -> None:
        process = psutil.Process()
        while True:
            self.peak_mb = max(self.peak_mb, process.memory_info().rss / MEBIBYTE - self.base_mb)
            if self._stop.wait(self.interval):
                return


def settle_memory(device: torch.device) -> float:
    """Give back what earlier work has left behind.

    Returns:
        What the process holds nevertheless, in MiB: the base from which :class:`PeakMemory` counts.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated(device) / MEBIBYTE
    if sys.platform == "linux":
        allocator = ctypes.CDLL(None)  # the allocator that is in use: tcmalloc, if preloaded, or glibc's
        if hasattr(allocator, "MallocExtension_ReleaseFreeMemory"):
            allocator.MallocExtension_ReleaseFreeMemory()
        elif hasattr(allocator, "malloc_trim"):
            allocator.malloc_trim(0)
    return psutil.Process().memory_info().rss / MEBIBYTE


def _median_seconds(model: AnomalibModule, image: torch.Tensor, seconds: float) -> float:
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(WARM_UP):
            model(image)
        while len(times) < REPETITIONS or sum(times) < seconds:
            _synchronise(image.device)
            start = time.perf_counter()
            model(image)
            _synchronise(image.device)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
