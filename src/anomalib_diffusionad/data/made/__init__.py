# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Two categories made from nothing, in the MVTec AD layout, for what the photographs of the demo data do not show.

An object that turns freely, with defects of a few pixels, and a rough surface with cracks that are one or two pixels
wide. Images are 256 pixels wide and follow from the seed alone; masks are what a person would mark.
"""

from .cracked_surface import make_cracked_surface
from .turning_part import make_turning_part

__all__ = ["make_cracked_surface", "make_turning_part"]
