# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A look at the training images before the first step, for compact networks."""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from .batches import training_batches
from .poses import aligned
from .weights import share_buffers

logger = logging.getLogger(__name__)

IMAGES = 256


class FirstLook(Callback):
    """Measures how bright training images are, and finds out how they lie, from up to 256 of them, spread evenly.

    A run that is resumed has the first from its checkpoint.

    Attributes:
        any_pose: Whether normal images may as well be turned or flipped: true of textures, of objects that lie anyhow,
            and of objects that differ from each other more than from themselves in another pose.
    """

    def __init__(self) -> None:
        self.any_pose = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Look on the first rank, and tell the others."""
        model = pl_module.model
        if not model.compact:
            return
        if trainer.is_global_zero:
            images = _training_images(trainer, pl_module)
            if not trainer.global_step:
                model.segmentation.fit(images)
            self.any_pose = not aligned(images)
        self.any_pose = trainer.strategy.broadcast(self.any_pose)
        share_buffers(trainer, model.segmentation)
        how = "in any pose, or differ much: they are turned" if self.any_pose else "alike"
        logger.info("Training images lie %s.", how)


def _training_images(trainer: Trainer, module: Any) -> Tensor:  # noqa: ANN401
    """Images ``(N, 3, S, S)`` as the model sees them."""
    # what is drawn for them must not change what the run draws, and is the same when it is resumed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batches = list(training_batches(trainer, module, IMAGES))
    return torch.cat([batch.image.as_subclass(Tensor) for batch in batches])[:IMAGES].float()
