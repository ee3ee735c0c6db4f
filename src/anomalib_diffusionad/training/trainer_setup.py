# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a run needs set on the trainer and the process."""

import logging
import re
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.models import AnomalibModule
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer

from anomalib_diffusionad.hardware import computes_bfloat16, keep_freed_memory
from anomalib_diffusionad.recipes import Settings

from .checkpoint import AtomicCheckpointIO

logger = logging.getLogger(__name__)


class TrainerSetup(Callback):
    """Sets checkpoint writing, validation and memory up before a run, and warns of a slow precision."""

    def __init__(self) -> None:
        self._limit_val_batches: int | float | None = None

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:  # noqa: ANN401 - DiffusionAD
        """Prepare the trainer; Lightning calls this before the module's own ``setup``."""
        keep_freed_memory()
        strategy = trainer.strategy
        if type(strategy.checkpoint_io) in {AnomalibCheckpointIO, TorchCheckpointIO}:  # not one of the user's
            strategy.checkpoint_io = AtomicCheckpointIO(pl_module.checkpoint_safe_globals())
        if stage == "fit":
            log_settings("Settings that are not the paper's", pl_module.settings, Settings())
        datamodule = getattr(trainer, "datamodule", None)
        if stage == "fit" and datamodule is not None and not hasattr(datamodule, "val_data"):
            # val_split_mode "none": anomalib's val_dataloader would fail
            self._limit_val_batches = trainer.limit_val_batches
            trainer.limit_val_batches = 0
        if trainer.precision.startswith("bf16") and not computes_bfloat16(strategy.root_device):
            logger.warning(
                "This processor has no instructions for bfloat16: precision %s is many times slower here than "
                "32-true (--trainer.precision 32-true).",
                trainer.precision,
            )

    def teardown(self, trainer: Trainer, pl_module: AnomalibModule, stage: str) -> None:  # type: ignore[override]
        """Give the trainer its validation back, so that it can be used again with other data."""
        del pl_module, stage
        if self._limit_val_batches is not None:
            trainer.limit_val_batches = self._limit_val_batches
            self._limit_val_batches = None


def log_settings(what: str, settings: Settings, others: Settings) -> None:
    """Say which settings are not as others."""
    pairs = zip(settings._asdict().items(), others, strict=True)
    changed = [f"{name}={value!r}" for (name, value), other in pairs if value != other]
    logger.info("%s: %s.", what, ", ".join(changed) or "no difference")


def set_up_again(trainer: Trainer, module: AnomalibModule) -> None:
    """Set up what depends on the settings of a model, after a checkpoint has changed them.

    Lightning restores checkpoints after ``setup``; the datamodule resizes images as the model's pre-processor did then.
    """
    datamodule, stage = getattr(trainer, "datamodule", None), trainer.state.fn
    if isinstance(datamodule, AnomalibDataModule):
        datamodule.setup(stage)  # splits nothing a second time
    module.teardown(str(stage))
    module.setup(str(stage))


def synthesis_inputs(trainer: Trainer) -> dict[str, Any]:
    """What the synthesis has to know of a run: a folder for masks, which anomalib's numbered runs on the data share."""
    run = Path(trainer.default_root_dir)
    numbered = re.fullmatch(r"v\d+", run.name) and (run.parent / "latest").exists()
    return {"mask_cache": (run.parent if numbered else run) / "foreground"}
