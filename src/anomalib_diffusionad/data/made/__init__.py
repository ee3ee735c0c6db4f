# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Three categories made from nothing, in the MVTec AD layout, for what the photographs of the demo data do not show.

An object that turns freely, with defects of a few pixels, a rough surface with cracks that are one or two pixels wide,
and large images of a ground surface with small defects. Images of the first two are 256 pixels wide. All follow from
the seed alone; masks are what a person would mark.
"""

from .cracked_surface import make_cracked_surface
from .large_surface import make_large_surface
from .turning_part import make_turning_part

__all__ = ["make_cracked_surface", "make_large_surface", "make_turning_part"]
