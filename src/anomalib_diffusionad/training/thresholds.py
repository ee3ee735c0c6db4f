# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds for training runs without a validation set, from synthetic anomalies on training images."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.post_processing import PostProcessor
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_diffusionad.data.images import as_seen, evenly

logger = logging.getLogger(__name__)

IMAGES = 64
BATCH_SIZE = 8


class SyntheticThreshold(Callback):
    """Sets the thresholds of scores and maps when a training run without a validation set ends.

    They are those with the best F1 on up to 64 training images, spread evenly, and the same images with a synthetic
    anomaly each. No test image is looked at, and scores and maps stay as they are. The network has seen these images:
    on new ones it gives somewhat more false alarms. With a validation set, anomalib takes the thresholds from that.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the thresholds after the last epoch, before its checkpoint is written."""
        post_processor = getattr(pl_module, "post_processor", None)
        dataset = getattr(getattr(trainer, "datamodule", None), "train_data", None)
        last = (
            trainer.should_stop
            or trainer.current_epoch + 1 == trainer.max_epochs
            or trainer.global_step == trainer.max_steps
        )
        if dataset is None or not last or trainer.enable_validation or not isinstance(post_processor, PostProcessor):
            return
        pl_module.eval()
        # images that are augmented anew must not change what a resumed run draws
        with torch.random.fork_rng(devices=[]), torch.no_grad(), trainer.precision_plugin.forward_context():
            for batch in _batches(pl_module, dataset):
                post_processor.on_validation_batch_end(trainer, pl_module, batch)
        pl_module.train()
        post_processor.on_validation_epoch_end(trainer, pl_module)
        logger.info(
            "Thresholds from synthetic anomalies on training images: %.3f for images, %.3f for pixels.",
            float(post_processor.image_threshold),
            float(post_processor.pixel_threshold),
        )


def _batches(module: Any, dataset: Any) -> Iterator[ImageBatch]:  # noqa: ANN401 - DiffusionAD, which imports this file
    """Scored batches of normal images and the same with anomalies, on the device of the model."""
    generator = torch.Generator().manual_seed(0)
    rows = [int(row) for row in evenly(len(dataset), IMAGES)]
    transform = getattr(module.pre_processor, "transform", None)
    for start in range(0, len(rows), BATCH_SIZE):
        items = [dataset[row] for row in rows[start : start + BATCH_SIZE]]
        normal = torch.stack([as_seen(item.image, None, transform)[0] for item in items]).to(module.device)
        paths = [getattr(item, "image_path", None) for item in items]
        steps = module.synthesizer.steps(normal, paths, module.global_step, generator)
        for image, mask in ((normal, torch.zeros_like(steps.mask)), (steps.result, steps.mask)):
            yield ImageBatch(
                image=image,
                gt_label=mask.flatten(1).any(dim=1),
                gt_mask=mask[:, 0],
                **module.model(image)._asdict(),
            )
