# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoint files that are complete or not there at all, and a word on those that do not fit."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.models import AnomalibModule
from torch import Tensor

from anomalib_diffusionad.checks import require
from anomalib_diffusionad.data.files import whole_file

# what Lightning writes into its checkpoints and asks for first
VERSION = "pytorch-lightning_version"


class AtomicCheckpointIO(AnomalibCheckpointIO):
    """Writes a checkpoint beside its place and then puts it there in one go.

    Lightning writes to the system's folder for temporary files and moves the result. Where that is another file system
    the move is a copy, and a process killed or a disk full in the middle of it costs the checkpoint that was there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:  # noqa: ANN401 - Lightning's signature
        """Save a checkpoint; one already at ``path`` stays as it is until the new one is complete.

        Args:
            checkpoint: What to save.
            path: File to write, with its folders. Remote places are left to Lightning.
            storage_options: Lightning's; not used.

        Raises:
            OSError: If it cannot be written, for example because the disk is full.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            with whole_file(path) as draft, draft.open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:
            # torch puts an error about file positions in front of what the file system said
            cause = error.__context__
            if not isinstance(cause, OSError):
                raise
            msg = f"The checkpoint {path} cannot be written; one that was there is kept. {cause.strerror}"
            raise OSError(cause.errno, msg) from error

    def load_checkpoint(self, path: str | Path, *args, **kwargs) -> dict[str, Any]:
        """Load a checkpoint.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a checkpoint or not all of it.
        """
        check_complete(path)
        checkpoint = super().load_checkpoint(path, *args, **kwargs)
        require(isinstance(checkpoint, Mapping) and VERSION in checkpoint, not_of_a_run(path))
        return checkpoint


def not_of_a_run(path: str | Path) -> str:
    """What is wrong with a file that PyTorch can read and Lightning cannot."""
    return (
        f"{path} is not a checkpoint of a training run, which are the .ckpt files below its weights/lightning. One of "
        f"the original code becomes one by import-official."
    )


def check_complete(path: str | Path) -> None:
    """Refuse a local file that is not there, or is no checkpoint or only the beginning of one.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none.
    """
    if "://" in str(path):
        return
    if not Path(path).is_file():
        msg = f"The checkpoint {path} does not exist. Those of a run are the .ckpt files below its weights/lightning."
        raise FileNotFoundError(msg)
    # the directory of the archive is written last
    require(
        zipfile.is_zipfile(path),
        f"{path} is not a checkpoint, or its end is missing. Take another one, or copy it again.",
    )


def check_fits(checkpoint: Mapping[str, Any], own: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint of another model.

    Args:
        checkpoint: The checkpoint.
        own: Weights of the model that is to load it.

    Raises:
        ValueError: If weights are missing or have another shape.
    """
    saved = checkpoint.get("state_dict", {})
    wrong = [name for name, value in own.items() if name not in saved or saved[name].shape != value.shape]
    if not wrong:
        return
    there = [name for name in wrong if name in saved]
    if there:
        name = there[0]
        msg = (
            f"The checkpoint is of a DiffusionAD of another size: {name} has shape {tuple(saved[name].shape)} there "
            f"and {tuple(own[name].shape)} here. Give image_size, preset, base_channels and segmentation_channels as "
            f"in the training run."
        )
    else:
        msg = (
            f"The checkpoint is of another model: {len(wrong)} of DiffusionAD's {len(own)} weights are missing from "
            f"it, {wrong[0]} for one."
        )
    raise ValueError(msg)


@contextmanager
def keeping_measures(module: AnomalibModule, checkpoint: dict[str, Any]) -> Iterator[None]:
    """Let a model in a trainer keep its evaluator and visualizer while it restores the components of a checkpoint.

    They are callbacks already, and no part of what was trained: a model trained without metrics can be tested with
    some.
    """
    attached, own = module._trainer is not None, (module.evaluator, module.visualizer)  # noqa: SLF001 - may be None
    yield
    if attached:
        module.evaluator, module.visualizer = own
    weights = checkpoint.get("state_dict", {})
    for name in [name for name in weights if name.startswith("evaluator.")]:
        del weights[name]
    weights |= {name: value for name, value in module.state_dict().items() if name.startswith("evaluator.")}


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuse a state dict with weights of the networks that a run has spoilt.

    Raises:
        FloatingPointError: If one is not finite.
    """
    own = {name: value for name, value in weights.items() if name.startswith("model.") and value.is_floating_point()}
    finite = {name: value.isfinite().all() for name, value in own.items()}
    if finite and not torch.stack(list(finite.values())).all():  # looked at once: each look waits for the device
        name = next(name for name, good in finite.items() if not good)
        msg = f"The weights {name} are no longer finite, so no checkpoint is written."
        raise FloatingPointError(msg)
