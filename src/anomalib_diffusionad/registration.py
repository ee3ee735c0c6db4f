# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Makes anomalib find the plug-in by name."""

from anomalib.models import ALLOWED_MODULES

PACKAGE = "anomalib_diffusionad"


def register() -> None:
    """Let ``get_model`` and ``anomalib benchmark`` take ``anomalib_diffusionad.DiffusionAD``.

    anomalib imports models for its pipelines from a list of modules; this adds the package to it. Calling it again
    changes nothing. Importing the package calls it.
    """
    ALLOWED_MODULES.add(PACKAGE)
