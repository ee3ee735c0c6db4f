# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of what the model makes of a few images, while it learns."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger
from PIL import Image
from torch import Tensor

from anomalib_diffusionad.checks import require_at_least
from anomalib_diffusionad.torch_model import DiffusionADModel

from .stages import draw_batch, stages
from .table import word

NAME = "reconstructions"


class _Samples(NamedTuple):
    """Images ``(N, 3, S, S)`` in [0, 1], masks ``(N, 1, S, S)`` and labels ``(N,)``."""

    image: Tensor
    mask: Tensor
    label: Tensor


class ReconstructionLogger(Callback):
    """Gives reconstructions and maps of a few training images to the loggers, every few epochs.

    The images are those that come first in the training, about half of them with a synthetic anomaly. They stay the
    same all along; no test image is looked at. TensorBoard, Weights & Biases, MLflow and every logger with
    ``add_image`` or ``log_image`` get the pictures. If there is none of these, they are written to the folder
    ``reconstructions`` of the run.

    Args:
        every_n_epochs: Draw after this many epochs, and again after as many.
        count: Number of images.

    Raises:
        ValueError: If an argument is less than 1.

    Example:
        In a configuration file::

            trainer:
              callbacks:
                - class_path: anomalib_diffusionad.visualization.ReconstructionLogger
                  init_args:
                    every_n_epochs: 10
    """

    def __init__(self, every_n_epochs: int = 10, count: int = 4) -> None:
        require_at_least("every_n_epochs", every_n_epochs, 1)
        require_at_least("count", count, 1)
        self.every_n_epochs = every_n_epochs
        self.count = count
        self._samples: _Samples | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with new images.

        Raises:
            TypeError: If the model is not DiffusionAD.
        """
        del trainer
        if not isinstance(getattr(pl_module, "model", None), DiffusionADModel):
            msg = f"ReconstructionLogger draws DiffusionAD's reconstructions, but the model is {type(pl_module)}."
            raise TypeError(msg)
        self._samples = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,  # noqa: ANN401 - DiffusionAD, as on_fit_start checks
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Take images of the first batches, until there are enough."""
        del outputs, batch_idx
        have = 0 if self._samples is None else len(self._samples.image)
        if have == self.count or not trainer.is_global_zero:
            return
        image = batch.image[: self.count - have]
        paths = getattr(batch, "image_path", None)
        paths = None if paths is None else paths[: len(image)]
        # a source of randomness of its own: the training is the same with and without pictures
        generator = torch.Generator().manual_seed(have)
        foreground = getattr(batch, "foreground", None)
        foreground = None if foreground is None else foreground[: len(image)]
        new = _Samples(*pl_module.synthesizer(image, paths, pl_module.global_step, generator, foreground))
        if self._samples is not None:
            new = _Samples(*(torch.cat(pair) for pair in zip(self._samples, new, strict=True)))
        self._samples = new

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401
        """Draw the images and hand them over."""
        epoch = trainer.current_epoch + 1
        if self._samples is None or epoch % self.every_n_epochs:
            return
        picture = _draw(pl_module, self._samples, epoch)
        shown = [send(logger, picture, trainer.global_step) for logger in trainer.loggers]
        if not any(shown):
            folder = Path(trainer.default_root_dir) / NAME
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"epoch_{epoch:05d}.png")


def send(logger: Logger, picture: Image.Image, step: int) -> bool:
    """Hand a picture to a logger.

    Args:
        logger: A logger of Lightning, anomalib or one's own.
        picture: RGB picture.
        step: Training step.

    Returns:
        Whether the logger takes pictures.
    """
    pixels = np.asarray(picture)
    if isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, pixels, artifact_file=f"{NAME}/step_{step:07d}.png")
    elif hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image(key=NAME, images=[picture], step=step)
    elif hasattr(logger, "add_image"):  # those of anomalib
        logger.add_image(image=pixels, name=NAME, global_step=step)
    elif hasattr(experiment := getattr(logger, "experiment", None), "add_image"):  # TensorBoard
        experiment.add_image(NAME, pixels, step, dataformats="HWC")  # type: ignore[union-attr]
    else:
        return False
    return True


def _draw(module: Any, samples: _Samples, epoch: int) -> Image.Image:  # noqa: ANN401
    network, training = module.model, module.model.training
    network.eval()
    try:
        steps = stages(network, samples.image, truth=samples.mask)
    finally:
        network.train(training)
    return draw_batch(steps, [word(label) for label in samples.label], f"epoch {epoch}")
