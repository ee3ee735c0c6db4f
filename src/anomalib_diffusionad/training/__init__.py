# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What a training run needs besides its steps: checks, randomness, thresholds, checkpoints."""

from lightning.pytorch import Callback

from anomalib_diffusionad.visualization.table import PredictionTable

from .checkpoint import check_complete, check_finite, check_fits
from .finite_loss import FiniteLoss, ShownLoss
from .input_check import InputCheck, check_pre_processor, check_values
from .linear_fit import LinearFit
from .progress import Progress, one_cycle
from .randomness import StepRandomness
from .replay import SegmentationReplay
from .thresholds import SyntheticThreshold
from .trainer_setup import TrainerSetup, log_settings, set_up_again, synthesis_inputs

__all__ = [
    "Progress",
    "ShownLoss",
    "StepRandomness",
    "callbacks_for",
    "check_complete",
    "check_finite",
    "check_fits",
    "check_pre_processor",
    "check_values",
    "log_settings",
    "one_cycle",
    "set_up_again",
    "synthesis_inputs",
]


def callbacks_for(randomness: StepRandomness) -> list[Callback]:
    """The callbacks of a model with the given randomness of its training steps."""
    replay, thresholds = SegmentationReplay(), SyntheticThreshold()
    checks = [TrainerSetup(), InputCheck(), FiniteLoss()]
    return [*checks, randomness, LinearFit(), replay, thresholds, PredictionTable()]
