# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a training run needs besides its steps: checks, randomness, thresholds, checkpoints."""

from lightning.pytorch import Callback

from anomalib_diffusionad.visualization.table import PredictionTable
from anomalib_diffusionad.visualization.visualizer import HeatMapVisualizer

from .carried_settings import CarriedSettings
from .file_reading import FileReading
from .finite_loss import FiniteLoss, ShownLoss
from .input_check import InputCheck, check_pre_processor, check_values
from .labels import TestClasses
from .last_checkpoint import LastCheckpoint
from .linear_fit import LinearFit
from .metrics import metrics
from .optimizers import make_optimizer
from .progress import Progress, one_cycle
from .randomness import StepRandomness, draw_time_steps
from .replay import SegmentationReplay
from .symmetries import turn_each
from .thresholds import SyntheticThreshold
from .trainer_setup import TrainerSetup, make_pre_processor, synthesis_inputs

__all__ = [
    "CarriedSettings",
    "HeatMapVisualizer",
    "LinearFit",
    "Progress",
    "ShownLoss",
    "StepRandomness",
    "callbacks_for",
    "check_pre_processor",
    "check_values",
    "draw_time_steps",
    "make_optimizer",
    "make_pre_processor",
    "metrics",
    "one_cycle",
    "synthesis_inputs",
    "turn_each",
]


def callbacks_for(randomness: StepRandomness, linear_fit: LinearFit) -> list[Callback]:
    """The callbacks of a model.

    Args:
        randomness: That of the training steps.
        linear_fit: What training steps ask how images lie.
    """
    thresholds = SyntheticThreshold()
    return [
        # when a run is stopped these come before what tidies up: thresholds need data and textures
        thresholds,
        LastCheckpoint(thresholds),
        TrainerSetup(),
        randomness,
        FiniteLoss(),
        linear_fit,
        SegmentationReplay(),
        InputCheck(),
        FileReading(),
        TestClasses(),
        PredictionTable(),
    ]
