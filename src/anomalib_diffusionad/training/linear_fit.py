# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Shows the training images to the linear denoiser before the first step."""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from anomalib_diffusionad.data.images import as_seen

logger = logging.getLogger(__name__)

IMAGES = 256


class LinearFit(Callback):
    """Fits the linear denoiser, if the model has one, to up to 256 training images of the run's own loader.

    A run that is resumed has it from its checkpoint.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Fit it on the first rank, and give it to the others."""
        linear = pl_module.model.linear
        if linear is None or trainer.global_step:
            return
        if trainer.is_global_zero:
            images = _images(trainer, pl_module)
            linear.fit(images.to(pl_module.device))
            logger.info("The linear denoiser was fitted to %d training images.", len(images))
        if trainer.world_size > 1:
            for buffer in linear.buffers():
                buffer.copy_(trainer.strategy.broadcast(buffer))


def _images(trainer: Trainer, module: Any) -> torch.Tensor:  # noqa: ANN401
    """Training images ``(N, 3, S, S)`` as the model sees them, without a change to what the run draws."""
    transform = getattr(module.pre_processor, "transform", None)
    found: list[torch.Tensor] = []
    with torch.random.fork_rng(devices=[]):
        for batch in trainer.train_dataloader:  # type: ignore[union-attr]
            found += [as_seen(image.cpu(), None, transform)[0] for image in batch.image]
            if len(found) >= IMAGES:
                break
    return torch.stack(found[:IMAGES]).float()
