# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""The ``import-official`` and ``export-official`` commands."""

import logging
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from anomalib_diffusionad.data.files import check_place
from anomalib_diffusionad.lightning_model import DiffusionAD
from anomalib_diffusionad.official import to_official

logger = logging.getLogger(__name__)


def import_official(source: str, out: str, trust: bool = False) -> None:
    """Turn a checkpoint of the original DiffusionAD code into one for anomalib.

    Args:
        source: Checkpoint of the original code, such as params-best.pt.
        out: Checkpoint to write, such as model.ckpt.
        trust: Allow the file to run code while it is read. Not needed for what the original code writes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds anything but plain data, or does not fit; the message lists what.
    """
    check_place(Path(out), "out")
    model = DiffusionAD.from_official(source, trust=trust)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(out, weights_only=True)
    arguments = {name: value for name, value in model.hparams.items() if value is not None}
    logger.info("Wrote %s, a model with %s.", out, arguments)


def export_official(source: str, out: str) -> None:
    """Turn a checkpoint of this model into one for the original DiffusionAD code.

    Args:
        source: Checkpoint of a training with anomalib.
        out: Checkpoint to write, such as params-best.pt.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    check_place(Path(out), "out")
    model = DiffusionAD.load_from_checkpoint(source, map_location="cpu")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    torch.save(to_official(model.model, {"less_t_range": model.settings.tau}), out)
    logger.info("Wrote %s.", out)
