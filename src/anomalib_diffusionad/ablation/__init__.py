# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The paper's ablations on one's own model and data."""

from .command import ablate

__all__ = ["ablate"]
