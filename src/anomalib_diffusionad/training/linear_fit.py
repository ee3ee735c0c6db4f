# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Shows the training images to compact networks before the first step, and finds out how these images lie."""

import logging
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from anomalib_diffusionad.compact import LinearDenoiser
from anomalib_diffusionad.torch_model import LinearEstimate

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

    Axes know the images that they were fitted to better than others of their kind. So in training the estimate of an
    image is that of axes which were fitted to the other half of the images: what the U-Net and the segmentation network
    see is then as far from the image as it will be on new ones.

    A run that is resumed has the axes of all images from its checkpoint, and fits the others again, to the same images.

    Attributes:
        any_pose: Whether normal images may as well be turned or flipped: true of textures, of objects that lie anyhow,
            and of objects that differ from each other more than from themselves in another pose.
    """

    def __init__(self) -> None:
        self.any_pose = False
        self._halves: list[LinearDenoiser] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401 - DiffusionAD
        """Fit on the first rank, and give it to the others."""
        model = pl_module.model
        if model.linear is None:
            return
        images, half = torch.zeros(0), torch.zeros(0)
        if trainer.is_global_zero:
            images, half = _training_images(trainer, pl_module)
            if not trainer.global_step:
                model.linear.fit(images)
                model.segmentation.fit(images)
                logger.info("The linear denoiser was fitted to %d training images.", len(images))
            self.any_pose = not aligned(images)
        enough = min(int((half == number).sum()) for number in (0, 1)) >= LEAST_IMAGES
        self.any_pose, enough = trainer.strategy.broadcast((self.any_pose, enough))
        self._halves = []
        for number in (0, 1) if enough else ():
            linear = LinearDenoiser(model.image_size).to(pl_module.device)
            if trainer.is_global_zero:
                linear.fit(images[half == number])
            self._halves.append(linear)
        share_buffers(trainer, model.linear, model.segmentation, *self._halves)
        how = "in any pose, or differ much: they are turned" if self.any_pose else "alike"
        logger.info("Training images lie %s.", how)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Let go of the axes."""
        del trainer, pl_module
        self._halves = []

    def estimate(self, paths: Sequence[str | None] | None) -> LinearEstimate | None:
        """The linear estimate of a batch of both noise scales, by axes that do not know its images.

        Args:
            paths: File of each image; None where there are no files, which then are not told apart.

        Returns:
            None where there are no such axes.
        """
        if not self._halves or paths is None or None in paths:
            return None
        first, second = self._halves
        own = [half_of(path) for path in paths] * 2

        def estimate(noisy: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
            in_first = torch.tensor(own).to(noisy.device, non_blocking=True)[:, None, None, None] == 0
            (by_first, left_by_first), (by_second, left_by_second) = first(noisy, alpha_bar), second(noisy, alpha_bar)
            left = torch.where(in_first, left_by_second, left_by_first)
            return torch.where(in_first, by_second, by_first), left

        return estimate


def half_of(path: Any) -> int:  # noqa: ANN401 - a string or a path
    """In which half of the images a file is: 0 or 1, the same in every run."""
    return zlib.crc32(str(path).encode()) & 1


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


def _training_images(trainer: Trainer, module: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Images ``(N, 3, S, S)`` as the model sees them, and in which half each is, ``(N,)``; -1 without a file."""
    # what is drawn for them must not change what the run draws, and is the same when it is resumed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batches = list(training_batches(trainer, module, IMAGES))
    images = torch.cat([batch.image.as_subclass(Tensor) for batch in batches])[:IMAGES].float()
    paths = [path for batch in batches for path in (getattr(batch, "image_path", None) or [None] * len(batch.image))]
    half = [-1 if path is None else half_of(path) for path in paths[:IMAGES]]
    return images, torch.tensor(half, device=images.device)
