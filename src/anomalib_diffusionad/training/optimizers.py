# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The optimiser of both networks."""

from torch.optim import Adam, Optimizer

from anomalib_diffusionad.recipes import Settings
from anomalib_diffusionad.torch_model import DiffusionADModel

from .muon import Muon, parameter_groups


def make_optimizer(settings: Settings, model: DiffusionADModel, *, clips: bool) -> Optimizer:
    """One optimiser with a learning rate for each network.

    Args:
        settings: Name the optimiser and its rates.
        model: Networks to be trained.
        clips: Whether the trainer clips gradients, which in mixed precision a fused optimiser does not let it do.
    """
    networks = list(zip((model.unet, model.segmentation), settings.learning_rates, strict=True))
    if settings.optimizer == "muon":
        return Muon([group for network, rate in networks for group in parameter_groups(network, rate)])
    return Adam([{"params": network.parameters(), "lr": rate} for network, rate in networks], fused=not clips)
