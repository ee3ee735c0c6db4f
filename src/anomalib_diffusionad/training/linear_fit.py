# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Shows the training images to compact networks before the first step, and finds out how these images lie."""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from anomalib_diffusionad.compact import LinearDenoiser

from .batches import training_batches
from .symmetries import turn_each
from .weights import share_buffers

logger = logging.getLogger(__name__)

IMAGES = 256
LEAST_IMAGES = 8
# turned images are this many times as far from their estimate where all images lie alike
ALIGNED = 1.5
# signal level at which that is measured, and turns of each image
LEVEL, DRAWS = 0.97, 4


class LinearFit(Callback):
    """Fits what compact networks know of the training images in closed form, to up to 256 of them, spread evenly.

    A run that is resumed has it from its checkpoint.

    Attributes:
        any_pose: Whether normal images may as well be turned or flipped: true of textures, of objects that lie anyhow,
            and of objects that differ from each other more than from themselves in another pose.
    """

    def __init__(self) -> None:
        self.any_pose = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Fit on the first rank, and give it to the others."""
        model = pl_module.model
        if model.linear is None:
            return
        if trainer.is_global_zero:
            images = _training_images(trainer, pl_module)
            if not trainer.global_step:
                model.linear.fit(images)
                model.segmentation.fit(images)
                logger.info("The linear denoiser was fitted to %d training images.", len(images))
            self.any_pose = not aligned(images)
        self.any_pose = trainer.strategy.broadcast(self.any_pose)
        share_buffers(trainer, model.linear, model.segmentation)
        how = "in any pose, or differ much: they are turned" if self.any_pose else "alike"
        logger.info("Training images lie %s.", how)


def aligned(images: Tensor) -> bool:
    """Whether images lie alike: whether the axes of some know others far better as they are than turned or flipped.

    Args:
        images: Normal images ``(N, 3, S, S)`` in [0, 1].
    """
    if len(images) < LEAST_IMAGES:
        return True
    generator, (height, width) = torch.Generator().manual_seed(0), images.shape[2:]
    upright = turned = 0.0
    for start in (0, 1):
        linear = LinearDenoiser((height, width)).to(images.device)
        linear.fit(images[start::2])
        others = images[1 - start :: 2]
        upright += _error(linear, others)
        turned += sum(_error(linear, turn_each(others, generator)) for _ in range(DRAWS)) / DRAWS
    return turned > ALIGNED * upright


def _error(linear: LinearDenoiser, images: Tensor) -> float:
    """How far images are from their estimates."""
    level = torch.full((len(images), 1, 1, 1), LEVEL, device=images.device)
    return float((linear(level.sqrt() * images, level)[0] - images).square().mean().sqrt())


def _training_images(trainer: Trainer, module: Any) -> Tensor:  # noqa: ANN401
    """Images ``(N, 3, S, S)`` as the model sees them."""
    # what is drawn for them must not change what the run draws, and is the same when it is resumed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batches = list(training_batches(trainer, module, IMAGES))
    return torch.cat([batch.image.as_subclass(Tensor) for batch in batches])[:IMAGES].float()
