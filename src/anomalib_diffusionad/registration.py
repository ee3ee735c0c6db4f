# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Makes anomalib find the plug-in by name."""

import sys

import anomalib.data
from anomalib.models import ALLOWED_MODULES

from .data import DAGM
from .visualization import logger

PACKAGE = "anomalib_diffusionad"
# import paths of earlier versions, which configuration files name
OLD_MODULES = {"reconstruction_logger": logger}


def register() -> None:
    """Let anomalib's ``get_model``, ``get_datamodule`` and ``benchmark`` find the plug-in.

    anomalib imports models for its pipelines from a list of modules and looks datamodules up in its own package. This
    adds ``anomalib_diffusionad`` to the list, for the class path ``anomalib_diffusionad.DiffusionAD``, and the
    datamodule ``DAGM`` to the package. Nothing that anomalib has is replaced. Import paths of earlier versions of the
    plug-in go on working. Calling it again changes nothing. Importing the package calls it.
    """
    ALLOWED_MODULES.add(PACKAGE)
    if not hasattr(anomalib.data, DAGM.__name__):
        setattr(anomalib.data, DAGM.__name__, DAGM)
    for name, module in OLD_MODULES.items():
        sys.modules.setdefault(f"{PACKAGE}.{name}", module)
