# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What the timing scripts share: models, images, the limits of the machine."""

import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from anomalib.data.utils import read_image
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2 import functional as tv

from anomalib_diffusionad import DiffusionAD, DiffusionADModel
from anomalib_diffusionad.comparison.scores import METRICS, PAPER_METRICS

ACCURACY = {name: METRICS[name] for name in PAPER_METRICS}
WARM_UP = 2
PAUSE = 0.1  # seconds between two measurements, for the threads of the last one to go to sleep


def make_model(preset: str, size: int, **arguments) -> DiffusionAD:
    """A model with random weights, the same at every call, also where training starts from zeros."""
    torch.manual_seed(0)
    model = DiffusionAD(image_size=size, preset=preset, visualizer=False, evaluator=False, **arguments)
    for parameter in model.model.unet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def compile_networks(model: DiffusionADModel, mode: str | None = None, backend: str = "inductor") -> None:
    """Compile both networks, as ``torch_compile`` of ``DiffusionAD`` does."""
    for network in (model.unet, model.segmentation):
        network.compile(fullgraph=True, dynamic=False, mode=mode, backend=backend)


def random_images(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """``(count, 3, size, size)`` in [0, 1], the same at every call."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def read_images(files: Iterable[Path], size: int) -> torch.Tensor:
    """``(N, 3, size, size)`` in [0, 1]."""
    return torch.stack([tv.resize(read_image(file, as_tensor=True), [size, size]) for file in files])


def megabytes(files: Iterable[Path]) -> float:
    """Size of files together, in units of 10^6 bytes."""
    return round(sum(file.stat().st_size for file in files) / 1e6, 1)


def percentages(accuracy: dict[str, float]) -> list[str]:
    """The metrics of ``ACCURACY``, in %."""
    return [f"{100 * accuracy[name]:.2f}" for name in ACCURACY]


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds that a function takes, on the device to its end."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def alternate(run: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call functions that return seconds in turn, after a warm-up, and collect what they return."""
    seconds: dict[str, list[float]] = {name: [] for name in run}
    for repeat in range(WARM_UP + repeats):
        for name, function in run.items():
            time.sleep(PAUSE)
            value = function()
            if repeat >= WARM_UP:
                seconds[name].append(value)
    return seconds


def words(text: str) -> list[str]:
    """Split at commas."""
    return [word.strip() for word in text.split(",")]


def numbers(text: str) -> list[int]:
    """Split at commas."""
    return [int(word) for word in text.split(",")]


def count_flops(function: Callable[[], object]) -> dict[str, int]:
    """Floating point operations by operator, a multiplication and an addition counting as two."""
    with FlopCounterMode(display=False) as counter:
        function()
    return {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the most that the device gives in practice."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _median(lambda: a @ b, device)


def convolution_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large 3 x 3 convolution and its gradients, channels-last."""
    batch = 32 if device.type == "cuda" else 2
    weight = torch.rand(256, 256, 3, 3, device=device).to(dtype, memory_format=torch.channels_last).requires_grad_()
    x = torch.rand(batch, 256, 64, 64, device=device).to(dtype, memory_format=torch.channels_last).requires_grad_()
    gradient = torch.rand_like(x)

    def step() -> None:
        torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), gradient)

    return 3 * 2 * weight.numel() * batch * 64 * 64 / _median(step, device)


def _median(function: Callable[[], object], device: torch.device) -> float:
    return statistics.median([timed(function, device) for _ in range(WARM_UP + 7)][WARM_UP:])
