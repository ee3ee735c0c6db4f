# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Stops a training run whose loss is not finite, before it costs what the run has learned."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class FiniteLoss(Callback):
    """Stops a run whose loss is not finite, on a CPU before the backward pass.

    Elsewhere looking at the loss in each step would be a host-device sync in each step, and where several processes
    train together all of them have to stop at the same place. The first step that is not finite is then remembered on
    the device, and looked at every ``log_every_n_steps`` steps, at the end of an epoch and before a checkpoint is
    written.
    """

    def __init__(self) -> None:
        self._bad_step = torch.tensor(-1)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with a clean record."""
        del trainer
        self._bad_step = torch.full((), -1, device=pl_module.device)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss of a step.

        Raises:
            FloatingPointError: If it is not finite.
        """
        del pl_module
        keep = loss.detach().isfinite() | (self._bad_step >= 0)
        self._bad_step = torch.where(keep, self._bad_step, trainer.global_step)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        at_once = loss.device.type == "cpu" and trainer.world_size == 1
        if at_once or trainer.global_step % max(1, every) == 0:
            self.check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See to it that no epoch ends well whose loss was not finite."""
        del pl_module
        self.check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict) -> None:
        """Keep the checkpoint that is there rather than write one of a spoilt run."""
        del pl_module, checkpoint
        self.check(trainer)

    def check(self, trainer: Trainer) -> None:
        """Raise if a loss was not finite.

        Raises:
            FloatingPointError: The message names the step and the last good checkpoint.
        """
        bad_step = self._bad_step
        if trainer.world_size > 1 and not trainer.interrupted:
            bad_step = trainer.strategy.reduce(bad_step.clone(), reduce_op="max")
        step = int(bad_step)
        if step < 0:
            return
        callback = trainer.checkpoint_callback
        path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
        kept = f"The last good weights are in {path}." if path else "No checkpoint had been written before."
        msg = (
            f"The training loss is no longer finite at step {step}. {kept} Look for images with NaN, lower "
            f"learning_rate, or use precision 32-true or bf16-mixed."
        )
        raise FloatingPointError(msg)


class ShownLoss:
    """The loss for the progress bar, which reads a number in each step.

    On CUDA that would be a host-device sync in each step, so the bar is given the last loss that has arrived in pinned
    memory. Expected gain: the host can queue the next step while the device computes; not measured on a GPU.
    """

    def __init__(self) -> None:
        self._arrived: Tensor | None = None

    def __call__(self, loss: Tensor) -> Tensor:
        """What to show of a scalar loss."""
        if not loss.is_cuda:
            return loss
        if self._arrived is None:
            self._arrived = torch.zeros((), pin_memory=True)
        return self._arrived.copy_(loss, non_blocking=True)
