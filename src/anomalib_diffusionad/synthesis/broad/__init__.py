# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalies of many kinds, with NumPy and OpenCV on the host, at the resolution that training sees.

Kinds: ``texture`` (a cloudy or uneven shape filled with a texture or with the changed image itself), ``thin`` (lines of
half a pixel and up), ``weak`` (smooth, of low contrast), ``structural`` (parts that are pasted, shifted, bent or
smoothed away) and ``chip`` (small, on outlines). Each is a function of the image, its :class:`Scene` and a source of
randomness, and gives what to blend in, and how much of it at each pixel.
"""

from .batch import draw_on_batch
from .draw import KINDS, Drawn, draw_anomalies
from .scene import Scene

__all__ = ["KINDS", "Drawn", "Scene", "draw_anomalies", "draw_on_batch"]
