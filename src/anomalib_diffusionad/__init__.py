# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""DiffusionAD for anomalib."""

from .data import DAGM
from .lightning_model import DiffusionAD
from .registration import register
from .torch_model import DiffusionADModel
from .visualization import ReconstructionLogger, ReconstructionVisualizer

__version__ = "0.1.0"

__all__ = [
    "DAGM",
    "DiffusionAD",
    "DiffusionADModel",
    "ReconstructionLogger",
    "ReconstructionVisualizer",
    "__version__",
    "register",
]

register()
