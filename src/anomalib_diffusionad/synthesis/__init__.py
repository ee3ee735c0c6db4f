# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomaly synthesis, section 4.4 of the paper."""

from .foreground import Foreground, make_foreground
from .synthesizer import AnomalySynthesizer
from .textures import TextureBank, open_textures

__all__ = ["AnomalySynthesizer", "Foreground", "TextureBank", "make_foreground", "open_textures"]
