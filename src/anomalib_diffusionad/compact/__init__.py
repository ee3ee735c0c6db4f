# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Networks for training runs of minutes on a processor."""

from .linear_denoiser import LinearDenoiser
from .segmentation import CompactSegmentation
from .unet import CompactUNet

__all__ = ["CompactSegmentation", "CompactUNet", "LinearDenoiser"]
