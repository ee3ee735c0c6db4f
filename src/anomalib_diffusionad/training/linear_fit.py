# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Shows the training images to the linear denoiser before the first step."""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from .batches import training_batches

logger = logging.getLogger(__name__)

IMAGES = 256


class LinearFit(Callback):
    """Fits the linear denoiser, if the model has one, to up to 256 training images, spread evenly.

    A run that is resumed has it from its checkpoint.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Fit it on the first rank, and give it to the others."""
        linear = pl_module.model.linear
        if linear is None or trainer.global_step:
            return
        if trainer.is_global_zero:
            # what is drawn for it must not change what the run draws
            with torch.random.fork_rng(devices=[]):
                batches = list(training_batches(trainer, pl_module, IMAGES))
            images = torch.cat([batch.image.as_subclass(Tensor) for batch in batches])[:IMAGES].float()
            linear.fit(images)
            logger.info("The linear denoiser was fitted to %d training images.", len(images))
        if trainer.world_size > 1:
            for buffer in linear.buffers():
                buffer.copy_(trainer.strategy.broadcast(buffer))
