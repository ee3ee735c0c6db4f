# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures and tables of what a model does."""

from .visualizer import ReconstructionVisualizer, save_overview

__all__ = ["ReconstructionVisualizer", "save_overview"]
