# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""DiffusionAD side by side with other models: accuracy by the same code, speed, and a report."""

from .compare import compare

__all__ = ["compare"]
