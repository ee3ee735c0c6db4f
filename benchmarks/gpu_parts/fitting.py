# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Training steps as Lightning runs them, with all callbacks of the model, on images that come from the host."""

from typing import Any

import torch
from anomalib.data import ImageBatch
from common import random_images
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from anomalib_diffusionad import DiffusionAD


class Window(Callback):
    """Looks at some steps of a run, from the start of one to the start of another; to be derived from.

    Args:
        first: Number of the first step to look at.
        steps: How many.
    """

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.last = first, first + steps
        self._open = False

    def opened(self) -> None:
        """The first step begins."""

    def closed(self) -> None:
        """The last step is over, or the run has failed."""

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Open or close."""
        del trainer, pl_module, batch
        if batch_idx == self.first:
            self._open = True
            self.opened()
        elif batch_idx == self.last:
            self._open = False
            self.closed()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close what is open."""
        del trainer, pl_module, exception
        if self._open:
            self.closed()


def fit(model: DiffusionAD, batch: int, precision: str, device: torch.device, *windows: Window) -> None:
    """Train for as many steps as the windows need, on one random batch."""
    steps = max(window.last for window in windows) + 1
    images = random_images(batch, model.settings.image_size)
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        max_steps=steps,
        callbacks=list(windows),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader([ImageBatch(image=images)] * steps, batch_size=None, collate_fn=lambda each: each))
