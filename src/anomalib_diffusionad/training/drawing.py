# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Draws the anomalies of a training step, on the host where they are made there."""

from typing import Any

import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torchvision.transforms.v2 import Resize

from anomalib_diffusionad.hardware import to_device

# hooks of a datamodule or of a derived model in which images may change
ON_THE_WAY = ("transfer_batch_to_device", "on_after_batch_transfer")


class StepDrawing:
    """Gives a training step its anomalies.

    Broad ones are drawn on the host. To fetch the images back from a GPU would take until that is done with the step
    before, and it would then wait for the host. So they are taken from the batch as it was before it went there, and
    the host draws while the GPU computes.
    """

    def __init__(self) -> None:
        self._on_host: Any = None

    def keep(self, module: Any, batch: Any) -> None:  # noqa: ANN401 - DiffusionAD; ImageBatch or VideoBatch
        """Keep a batch that is about to go to a device, if anomalies are to be drawn from it on the host."""
        self._on_host = None
        trainer = getattr(module, "_trainer", None)
        if trainer is None or not trainer.training or module.synthesizer.anomalies != "broad":
            return
        device = trainer.strategy.root_device
        if device.type == "cpu" or batch.image.device.type != "cpu":
            return
        if any(is_overridden(hook, each) for hook in ON_THE_WAY for each in (trainer.datamodule, module) if each):
            return
        self._on_host = batch
        if device.type == "cuda":  # which would wait for what lies elsewhere, see to_device
            batch.image = batch.image.pin_memory()

    def __call__(self, module: Any, batch: Any, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        """Images with anomalies, masks and labels, as of ``AnomalySynthesizer``, on the device of the batch."""
        kept, self._on_host = self._on_host, None
        source = kept if kept is not None and _is_as_before(module, kept.image, batch.image) else batch
        paths, foreground = (getattr(source, name, None) for name in ("image_path", "foreground"))
        drawn = module.synthesizer(source.image, paths, module.global_step, generator, foreground)
        image, mask, label = (to_device(each, batch.image.device) for each in drawn)
        return image, mask, label


def _is_as_before(module: Any, before: Tensor, now: Tensor) -> bool:  # noqa: ANN401
    """Whether images are those that the data set gave, which resizes as the default pre-processor would again."""
    transform = getattr(module.pre_processor, "transform", None)
    return before.shape == now.shape and (transform is None or isinstance(transform, Resize))
