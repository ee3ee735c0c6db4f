# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a training run needs besides its steps: checks, randomness, thresholds, checkpoints."""

from typing import Any

from lightning.pytorch import Callback, LightningModule

from anomalib_diffusionad.visualization.table import PredictionTable
from anomalib_diffusionad.visualization.visualizer import HeatMapVisualizer

from .checkpoint import check_complete, check_finite, check_fits
from .file_reading import FileReading
from .finite_loss import FiniteLoss, ShownLoss
from .input_check import InputCheck, check_pre_processor, check_values
from .labels import TestClasses
from .last_checkpoint import LastCheckpoint
from .linear_fit import LinearFit
from .metrics import metrics
from .progress import Progress, one_cycle
from .randomness import StepRandomness
from .replay import SegmentationReplay
from .thresholds import SyntheticThreshold
from .trainer_setup import TrainerSetup, log_settings, make_pre_processor, set_up_again, synthesis_inputs

__all__ = [
    "HeatMapVisualizer",
    "Progress",
    "ShownLoss",
    "StepRandomness",
    "callbacks_for",
    "check_complete",
    "check_fits",
    "check_pre_processor",
    "check_values",
    "finish_checkpoint",
    "log_settings",
    "make_pre_processor",
    "metrics",
    "one_cycle",
    "set_up_again",
    "synthesis_inputs",
]


def callbacks_for(randomness: StepRandomness) -> list[Callback]:
    """The callbacks of a model.

    Args:
        randomness: That of the training steps.
    """
    thresholds = SyntheticThreshold()
    return [
        # when a run is stopped these come before what tidies up: thresholds need data and textures
        thresholds,
        LastCheckpoint(thresholds),
        TrainerSetup(),
        randomness,
        FiniteLoss(),
        LinearFit(),
        SegmentationReplay(),
        InputCheck(),
        FileReading(),
        TestClasses(),
        PredictionTable(),
    ]


def finish_checkpoint(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Refuse weights that are not finite, and put the thresholds that belong to the others beside them.

    Args:
        module: Model that is saved.
        checkpoint: What is to be saved, with averaged weights where a callback has put them.

    Raises:
        FloatingPointError: If a weight is not finite.
    """
    check_finite(checkpoint["state_dict"])
    trainer: Any = module._trainer  # noqa: SLF001 - None where a model is saved by itself
    for callback in [] if trainer is None else trainer.callbacks:
        if isinstance(callback, SyntheticThreshold):
            callback.settle(trainer, module, checkpoint["state_dict"])
        elif isinstance(callback, LastCheckpoint):
            callback.note(checkpoint["state_dict"])
