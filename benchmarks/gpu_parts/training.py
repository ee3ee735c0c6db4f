# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Part 3: what a training step takes, in time and memory, and what of it goes where."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from common import random_images
from contenders import seconds_a_batch
from lightning.pytorch import Trainer
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from anomalib_diffusionad import DiffusionAD
from anomalib_diffusionad.comparison.speed import PeakMemory, settle_memory
from anomalib_diffusionad.recipes import RECIPES

from .fitting import Window, fit
from .plan import PAPER, Plan

GIB = 1024  # MiB
WAITS = {"cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy"}  # the profiler itself synchronises the device
PROFILED = 2


def measure(plan: Plan) -> None:
    """The fast recipe, the paper's networks in both memory layouts and with checkpointing, then the small ones."""
    # without a foreground, which a training run finds once for each file
    fast = {"recipe": "fast", "foreground": "none"}
    plan.measure("recipe fast", measure_step, plan, RECIPES["fast"].preset, fast)
    plan.measure(PAPER, measure_step, plan, PAPER)
    if plan.on_gpu:  # on a CPU none is chosen
        plan.measure(f"{PAPER}, contiguous", measure_step, plan, PAPER, None, Contiguous(0, 0))
    plan.measure(f"{PAPER}, checkpointing", measure_step, plan, PAPER, {"gradient_checkpointing": True})
    for preset in reversed(plan.small):
        plan.measure(preset, measure_step, plan, preset)


def measure_step(plan: Plan, preset: str, arguments: dict[str, Any] | None = None, *others: Window) -> dict[str, Any]:
    """Train for some steps in bf16-mixed, and time the synthesis by itself."""
    scale, device = plan.scale, plan.device
    model = plan.make_model(preset, **(arguments or {}))
    clock = Clock(scale.settling, scale.steps, device)
    windows = (clock, Profiled(clock.last, PROFILED)) if plan.on_gpu else (clock,)
    with PeakMemory(device, settle_memory(device)) as memory:
        fit(model, scale.batch, "bf16-mixed", device, *windows, *others)
    images, synthesizer = random_images(scale.batch, scale.size).to(device), model.synthesizer.to(device)
    synthesis = seconds_a_batch(synthesizer, images, scale.repeats)
    facts = {
        "batch": scale.batch,
        "ms": 1000 * clock.seconds,
        "images a second": scale.batch / clock.seconds,
        "peak GiB": memory.peak_mb / GIB,
        "share of synthesis": synthesis / clock.seconds,
    }
    return facts | (shares(windows[1].events, PROFILED * clock.seconds) if plan.on_gpu else {})


def shares(events: Iterable[Any], seconds: float) -> dict[str, float]:
    """Which share of some seconds the GPU had nothing to do, and which the host waited for it.

    Args:
        events: Averages of the profiler.
        seconds: What the profiled steps take without the profiler, which makes the host slower.
    """
    events = list(events)
    busy = sum(
        event.self_device_time_total
        for event in events
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    )
    waiting = sum(event.self_cpu_time_total for event in events if event.key in WAITS)
    return {"share of idle GPU": max(0.0, 1 - busy / 1e6 / seconds), "share of host waits": waiting / 1e6 / seconds}


class Clock(Window):
    """Seconds of a step, measured over several without a sync between them.

    Args:
        first: Number of the first step.
        steps: How many.
        device: Where they run.

    Attributes:
        seconds: Seconds of one step.
    """

    def __init__(self, first: int, steps: int, device: torch.device) -> None:
        super().__init__(first, steps)
        self.device = device
        self.seconds = float("nan")
        self._start = 0.0

    def opened(self) -> None:
        """Start."""
        self._start = self._now()

    def closed(self) -> None:
        """Stop."""
        self.seconds = (self._now() - self._start) / (self.last - self.first)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Contiguous(Window):
    """Keeps the U-Net in torch's usual memory layout, in which group normalisation computes on a GPU."""

    def on_fit_start(self, trainer: Trainer, pl_module: DiffusionAD) -> None:  # type: ignore[override]
        """Change the layout that the model has chosen."""
        del trainer
        pl_module.model.unet.to(memory_format=torch.contiguous_format)


class Profiled(Window):
    """What ran on host and GPU during some steps.

    Attributes:
        events: Averages of the profiler.
    """

    events: Iterable[Any] = ()

    def opened(self) -> None:
        """Start."""
        self._profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        self._profiler.start()

    def closed(self) -> None:
        """Stop, when the GPU is done."""
        torch.cuda.synchronize()
        self._profiler.stop()
        self.events = self._profiler.key_averages()
