# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Data sets that anomalib does not have."""

from .dagm import DAGM, DAGMDataset

__all__ = ["DAGM", "DAGMDataset"]
