# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures and tables of what a model does."""

from .logger import ReconstructionLogger
from .visualizer import ReconstructionVisualizer, save_overview

__all__ = ["ReconstructionLogger", "ReconstructionVisualizer", "save_overview"]
