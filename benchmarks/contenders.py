# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The models whose inference is timed: ours, the reference implementation, DRAEM and PatchCore."""

import statistics
from collections.abc import Callable, Iterable

import torch
from anomalib.models.image.draem.torch_model import DraemModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from baseline import Baseline
from common import alternate, make_model, random_images, timed
from torch import Tensor, nn

ALTERNATIVES = ("draem", "patchcore", "patchcore-lite0")
BANK = (20_000, 1536)
# a tenth of the patches of 200 images, one for each 8 x 8 pixels
LITE_IMAGES, LITE_STRIDE, LITE_CHANNELS = 20, 8, 40 + 112
WORTHWHILE = 1.03  # a larger batch must be faster by this factor for a still larger one to be tried

Score = Callable[[Tensor], Tensor]


class Scorer(nn.Module):
    """A model in inference, with Lightning's way to a precision: autocast."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.eval()
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        """Anomaly map of images ``(B, 3, S, S)``."""
        enabled = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(image.device.type, self.dtype, enabled=enabled):
            return self.model(image).anomaly_map


def make_network(name: str, preset: str, size: int, **arguments) -> nn.Module:
    """A network with random weights.

    Args:
        name: ``"draem"``, ``"patchcore"``, ``"patchcore-lite0"`` with EfficientNet-Lite0, ``"baseline"`` for the
            reference implementation, or anything else for ours.
        preset: Preset of the latter two.
        size: Height and width of the images in pixels.
        **arguments: Further arguments of ``DiffusionAD``.
    """
    torch.manual_seed(0)
    if name == "draem":
        return DraemModel()
    if name == "patchcore":
        model = PatchcoreModel(layers=["layer2", "layer3"], backbone="wide_resnet50_2", pre_trained=False)
        model.memory_bank = torch.randn(BANK)
        return model
    if name == "patchcore-lite0":
        model = PatchcoreModel(["blocks.2", "blocks.4"], backbone="tf_efficientnet_lite0", pre_trained=False)
        model.memory_bank = torch.randn(LITE_IMAGES * (size // LITE_STRIDE) ** 2, LITE_CHANNELS)
        return model
    ours = make_model(preset, size, **arguments).model
    return Baseline(ours) if name == "baseline" else ours


def seconds_a_batch(score: Score, image: Tensor, repeats: int) -> float:
    """Median over some batches, after a warm-up."""
    return statistics.median(alternate({"": lambda: timed(lambda: score(image), image.device)}, repeats)[""])


def best_batch(
    score: Score, batches: Iterable[int], size: int, device: torch.device, repeats: int = 7
) -> tuple[int, float]:
    """The batch size that gives most images a second, and how many; larger ones are tried while that pays.

    Raises:
        torch.OutOfMemoryError: If not even the first fits into the device's memory.
    """
    best, rate = 0, 0.0
    for batch in batches:
        try:
            faster = batch / seconds_a_batch(score, random_images(batch, size).to(device), repeats)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if not best:
                raise
            break
        if faster <= WORTHWHILE * rate:
            break
        best, rate = batch, faster
    return best, rate
