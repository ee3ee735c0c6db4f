# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""More updates of the segmentation network than of the U-Net, for training runs that are short of time."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, distributed

from .symmetries import turn

# images kept, fewer where they are larger: 1.3 GB of those of compact networks
CAPACITY, PIXELS = 1024, 2**26
# share of the updates of compact networks without a reconstruction
ALONE = 0.3


class SegmentationReplay(Callback):
    """Trains the segmentation network on earlier images as well, after each step of both networks.

    A pass of the U-Net costs many times one of the segmentation network, which needs more updates than a short training
    run has steps. So the images, reconstructions and masks of the last batches are kept, and batches of them, half as
    large, flipped and turned, are shown again: ``segmentation_replay`` of the model's settings says how many after each
    step of the optimiser, which is the run's own. Compact networks also learn to do without a reconstruction: in 30 %
    of these updates the image stands in its place. A run that is resumed starts without earlier images.
    """

    def __init__(self) -> None:
        # image, views of its reconstruction and true mask, float16 (C, S, S)
        self._examples: list[Tensor] = []
        self._step = self._batch = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note at which step the run starts."""
        del pl_module
        self._step, self._batch = trainer.global_step, 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,  # noqa: ANN401 - DiffusionAD, which imports this file
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Keep the batch's images, and replay earlier ones if it ended with a step of the optimiser."""
        updates = pl_module.settings.segmentation_replay
        if not updates:
            return
        new = torch.cat([outputs["image"], outputs["views"], outputs["mask"]], dim=1).half()
        if self._examples and self._examples[0].shape != new[0].shape:
            self._examples = []  # images of another size
        self._batch = max(self._batch, len(new))
        capacity = max(4 * self._batch, min(CAPACITY, PIXELS // new[0, 0].numel()))
        self._examples = [*self._examples, *new][-capacity:]
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        count = len(batch.image)
        if not stepped or len(self._examples) < 4 * count:
            return
        generator = pl_module.randomness.generator(pl_module, batch_idx, 1)
        for _ in range(updates):
            rows = torch.randint(len(self._examples), (max(1, count // 2),), generator=generator).tolist()
            values = turn(torch.stack([self._examples[row] for row in rows]).float(), generator)
            image, views, mask = values.split([3, values.shape[1] - 4, 1], dim=1)
            if pl_module.model.linear is not None and torch.rand((), generator=generator) < ALONE:
                views = image
            self._update(trainer, pl_module, image, views, mask)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the images."""
        del trainer, pl_module
        self._examples = []

    @staticmethod
    def _update(trainer: Trainer, module: Any, image: Tensor, views: Tensor, mask: Tensor) -> None:  # noqa: ANN401
        """One step of the optimiser, of the segmentation network alone; gradients that are there stay."""
        plugin = trainer.precision_plugin
        # with float16 the gradients would need scaling; float32 does not
        context = nullcontext() if getattr(plugin, "scaler", None) else plugin.forward_context()
        with torch.enable_grad(), context:
            loss = module.loss.mask_loss(module.model.segment_logits(image, views), mask)
        parameters = list(module.model.segmentation.parameters())
        gradients = dict(zip(parameters, _averaged(torch.autograd.grad(loss, parameters)), strict=True))
        optimizer = trainer.optimizers[0]
        everything = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        kept = [parameter.grad for parameter in everything]
        for parameter in everything:
            parameter.grad = gradients.get(parameter)
        module.clip_gradients(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        optimizer.step()
        for parameter, gradient in zip(everything, kept, strict=True):
            parameter.grad = gradient


def _averaged(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """The mean of all processes' gradients, with one all-reduce."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return gradients
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / distributed.get_world_size()
    distributed.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    return [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
