# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Sees to it that what a training run has learned is in a checkpoint when it ends, however it ends."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from .thresholds import SyntheticThreshold
from .weights import fingerprint

logger = logging.getLogger(__name__)


class LastCheckpoint(Callback):
    """Writes the last weights of a run and their thresholds to a checkpoint, and says where they are.

    A ``ModelCheckpoint`` writes when its turn comes (``every_n_epochs: 25``), and a run ends when it ends: by
    ``max_time``, early stopping, Ctrl-C or SIGTERM. Weights that some callbacks average are there only after the end.
    Nothing is written where no ``ModelCheckpoint`` is.

    Args:
        thresholds: What sets the thresholds of the run.
    """

    def __init__(self, thresholds: SyntheticThreshold) -> None:
        self._thresholds = thresholds
        self._written = torch.zeros(0)
        self._started = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with nothing written."""
        del trainer, pl_module
        self._written, self._started = torch.zeros(0), False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is something to do."""
        del trainer, pl_module
        self._started = True

    def note(self, weights: dict[str, Tensor]) -> None:
        """Remember the state dict of a checkpoint that is about to be written."""
        self._written = fingerprint(weights)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is not in a checkpoint yet."""
        callbacks = _checkpoints(trainer)
        if not callbacks or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self._missing(trainer, pl_module):
            for callback in callbacks:
                metrics = callback._monitor_candidates(trainer)  # noqa: SLF001
                if callback.monitor is None:  # its file holds the latest weights
                    callback._save_topk_checkpoint(trainer, metrics)  # noqa: SLF001
                callback._save_last_checkpoint(trainer, metrics)  # noqa: SLF001
        if self._missing(trainer, pl_module):
            first = callbacks[0]
            first.last_model_path = trainer.strategy.broadcast(str(_free(first, first.CHECKPOINT_NAME_LAST)))
            first._save_checkpoint(trainer, first.last_model_path)  # noqa: SLF001
        for callback in callbacks:
            if callback._last_global_step_saved == trainer.global_step:  # noqa: SLF001
                rank_zero_info(f"The last weights are in {callback._last_checkpoint_saved}")  # noqa: SLF001
                return

    def _missing(self, trainer: Trainer, module: LightningModule) -> bool:
        """Whether the model's weights and thresholds are in no checkpoint; all processes have to ask."""
        return trainer.strategy.broadcast(not torch.equal(self._written, fingerprint(module.state_dict())))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if no step was made: a run that is resumed has had its time, or its steps."""
        del pl_module
        if self._started or not trainer.is_global_zero:
            return
        timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
        left = [timer.time_remaining() for timer in timers]
        if any(seconds is not None and seconds <= 0 for seconds in left):
            resumed = "the run that is resumed had used up max_time. Give a longer one; the time of that run counts"
            why = resumed if trainer.ckpt_path else "max_time leaves no time. Give a longer one"
        else:
            limits = f"max_epochs={trainer.max_epochs} and max_steps={trainer.max_steps}"
            why = f"{limits} leave nothing to do, or there is no batch to train on. Set a limit beyond what was done"
        logger.warning("No training step was made: %s.", why)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:  # noqa: ANN401
        """Write a checkpoint of a run that is stopped by Ctrl-C or SIGTERM, at once and again with thresholds.

        The first process does it alone, since the others may be anywhere.
        """
        callbacks = _checkpoints(trainer)
        alone = isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)) and trainer.is_global_zero
        stopped = isinstance(exception, (KeyboardInterrupt, SIGTERMException)) and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if not (callbacks and self._started and trainer.global_step and alone and stopped):
            return
        path = _free(callbacks[0], "interrupted")
        _write(trainer, path)
        rank_zero_info(f"The last weights are in {path}. Their thresholds follow; another Ctrl-C leaves them out.")
        self._thresholds.run_is_over = True
        with suppress(KeyboardInterrupt), _interruptible():
            _write(trainer, path)
            rank_zero_info(f"The last weights and their thresholds are in {path}")
        del pl_module


def _checkpoints(trainer: Trainer) -> list[ModelCheckpoint]:
    """What writes the checkpoints of a run, those that keep the latest first."""
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    return sorted(callbacks, key=lambda callback: callback.monitor is not None)


def _free(callback: ModelCheckpoint, name: str) -> Path:
    """A file that is not there yet, in the folder of the checkpoints; or that the run has written before."""
    folder, number = Path(callback.dirpath or "."), 0
    while True:
        path = folder / f"{name}{f'-v{number}' if number else ''}{callback.FILE_EXTENSION}"
        if not path.exists() or str(path) == callback.last_model_path:
            return path
        number += 1


def _write(trainer: Trainer, path: Path) -> None:
    """What ``trainer.save_checkpoint`` does, without waiting for other processes."""
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # noqa: SLF001
    trainer.strategy.save_checkpoint(checkpoint, path)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have Ctrl-C raise again, which Lightning ignores after the first one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
