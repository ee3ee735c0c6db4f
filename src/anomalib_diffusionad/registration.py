# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Makes anomalib find the plug-in by name."""

import anomalib.data
from anomalib.models import ALLOWED_MODULES

from .data import DAGM

PACKAGE = "anomalib_diffusionad"


def register() -> None:
    """Let anomalib's ``get_model``, ``get_datamodule`` and ``benchmark`` find the plug-in.

    anomalib imports models for its pipelines from a list of modules and looks datamodules up in its own package. This
    adds ``anomalib_diffusionad`` to the list, for the class path ``anomalib_diffusionad.DiffusionAD``, and the
    datamodule ``DAGM`` to the package. Nothing that anomalib has is replaced. Calling it again changes nothing.
    Importing the package calls it.
    """
    ALLOWED_MODULES.add(PACKAGE)
    if not hasattr(anomalib.data, DAGM.__name__):
        setattr(anomalib.data, DAGM.__name__, DAGM)
