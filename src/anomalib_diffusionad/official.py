# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints of the original DiffusionAD code, in and out.

The original's training script writes ``{"n_epoch", "unet_model_state_dict", "seg_model_state_dict", "args"}``. The
segmentation network has the same parameter names here; the U-Net's are translated.
"""

import re
import struct
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.serialization import safe_globals

from .checks import require
from .data.tiles import sides
from .diffusion import linear_alpha_bar
from .torch_model import DiffusionADModel

KEYS = ("unet_model_state_dict", "seg_model_state_dict", "args")
# settings of the original that this implementation has as constants
FIXED_ARGS = {"beta_schedule": "linear", "num_heads": 4, "attention_resolutions": "32,16,8", "channels": 3}

# module names of the U-Net, ours -> the original's
_MODULES = {
    "time_embedding.linear1": "time_embedding.1",
    "time_embedding.linear2": "time_embedding.3",
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_projection": "embed_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
    "qkv": "to_qkv",
    "projection": "proj_out",
}
_ROOT_MODULES = {"stem": "down.0.0", "norm": "out.0", "head": "out.2"}


class OfficialCheckpoint(NamedTuple):
    """Contents of a checkpoint of the original code; state dicts carry the original's names."""

    unet: dict[str, Tensor]
    segmentation: dict[str, Tensor]
    args: dict[str, Any]


def read_official(path: str | Path, *, trust: bool = False) -> OfficialCheckpoint:
    """Read a checkpoint of the original code.

    The file is a pickle. It is read by PyTorch's restricted unpickler, which builds tensors and plain containers and
    runs nothing else. The one addition is ``collections.defaultdict``, which holds the settings and is read as a dict.

    Args:
        path: The file, such as ``params-best.pt``.
        trust: Read it with the ordinary unpickler, which runs whatever code the file asks for.

    Returns:
        The contents.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file names anything but plain data, is damaged, or lacks an entry.
    """
    if not Path(path).is_file():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    try:
        with safe_globals([(_plain_dict, "collections.defaultdict"), str]):
            content = torch.load(path, map_location="cpu", weights_only=not trust)
    except (UnpicklingError, RuntimeError, EOFError, struct.error, IndexError, KeyError) as error:
        (cause, *_) = str(error).splitlines() or [type(error).__name__]
        msg = (
            f"{path} cannot be read as a checkpoint of plain data: it is damaged, or it holds objects whose loading "
            f"runs code. If you trust its source, pass trust=True. ({cause})"
        )
        raise ValueError(msg) from error
    missing = [key for key in KEYS if not isinstance(content, Mapping) or key not in content]
    if missing:
        msg = f"{path} is not a checkpoint of the original DiffusionAD code: it has no {', '.join(missing)}."
        raise ValueError(msg)
    return OfficialCheckpoint(*(dict(content[key]) for key in KEYS))


def model_arguments(checkpoint: OfficialCheckpoint) -> dict[str, Any]:
    """Arguments of ``DiffusionAD`` that fit a checkpoint of the original code.

    Raises:
        ValueError: If the checkpoint was trained with a setting that is not supported, or lacks one.
    """
    args = checkpoint.args
    for name, value in FIXED_ARGS.items():
        if args.get(name, value) != value:
            msg = f"The checkpoint was trained with {name}={args[name]!r}; only {value!r} is supported."
            raise ValueError(msg)
    try:
        height, width = args["img_size"]
        first = checkpoint.segmentation["encoder_segment.block1.0.weight"]
        arguments = {
            "image_size": int(height),
            "base_channels": int(args["base_channels"]),
            "segmentation_channels": first.shape[0],
            "num_timesteps": int(args["T"]),
            "tau": int(args["less_t_range"]),
            "t_small": int(args["eval_normal_t"]),
            "t_big": int(args["eval_noisier_t"]),
            "guidance_scale": float(args["condition_w"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        msg = f"The settings in the checkpoint are incomplete or malformed: {error}."
        raise ValueError(msg) from error
    if height != width:
        msg = f"The checkpoint was trained on images of {height} x {width} pixels; only squares are supported."
        raise ValueError(msg)
    return arguments


def load_official(model: DiffusionADModel, checkpoint: OfficialCheckpoint) -> None:
    """Copy the weights of a checkpoint of the original code into a model.

    Raises:
        ValueError: If entries are missing, unexpected or of another shape; the message lists them by name.
    """
    _load(model.unet, {_official_name(name): name for name in model.unet.state_dict()}, checkpoint.unet)
    _load(model.segmentation, {name: name for name in model.segmentation.state_dict()}, checkpoint.segmentation)


def to_official(model: DiffusionADModel, args: Mapping[str, Any] | None = None, epoch: int = 0) -> dict[str, Any]:
    """The checkpoint that the original code would have written for a model.

    Args:
        model: The model.
        args: Further settings for the checkpoint's ``args``; those that the model knows take precedence.
        epoch: Number of the epoch to note.

    Returns:
        Dictionary for ``torch.save``.

    Raises:
        ValueError: If the original code has no such model.
    """
    require(
        model.linear is None,
        "The original code has no compact networks: only models of the presets paper, small and tiny can be exported.",
    )
    height, width = sides(model.image_size)
    require(
        height == width and not model.tiled,
        "The original code has neither tiles nor images that are no squares: such models cannot be exported.",
    )
    schedule = linear_alpha_bar(len(model.alpha_bar)).to(model.alpha_bar)
    require(
        torch.allclose(model.alpha_bar, schedule),
        "The original code has one noise schedule: models with another beta_start or beta_end cannot be exported.",
    )
    known = {
        "img_size": list(sides(model.image_size)),
        "T": len(model.alpha_bar),
        "base_channels": model.unet.stem.out_channels,
        "eval_normal_t": model.t_small,
        "eval_noisier_t": model.t_big,
        "condition_w": model.guidance_scale,
    }
    unet = {
        _official_name(name): (value[..., None] if _is_pointwise(name) else value).cpu().clone()
        for name, value in model.unet.state_dict().items()
    }
    return {
        "n_epoch": epoch,
        "unet_model_state_dict": unet,
        "seg_model_state_dict": {name: value.cpu().clone() for name, value in model.segmentation.state_dict().items()},
        "args": defaultdict(str, {**FIXED_ARGS, **(args or {}), **known}),
    }


def _plain_dict(_default_factory: type | None = None) -> dict[str, Any]:
    """Stands in for ``defaultdict``, which the restricted unpickler cannot fill."""
    return {}


def _load(module: torch.nn.Module, names: dict[str, str], entries: dict[str, Tensor]) -> None:
    """Load ``entries`` under the original's names; ``names`` maps those to ours."""
    own = module.state_dict()
    state = {ours: entries[theirs] for theirs, ours in names.items() if theirs in entries}
    state = {name: value.squeeze(-1) if _is_pointwise(name) else value for name, value in state.items()}
    problems = [f"missing {theirs}" for theirs in names if theirs not in entries]
    problems += [f"unexpected {theirs}" for theirs in entries if theirs not in names]
    problems += [
        f"{theirs} is {tuple(entries[theirs].shape)}, expected {tuple(own[ours].shape)}"
        for theirs, ours in names.items()
        if ours in state and state[ours].shape != own[ours].shape
    ]
    if problems:
        msg = f"The checkpoint does not fit the {type(module).__name__}: {'; '.join(problems)}."
        raise ValueError(msg)
    module.load_state_dict(state)


def _official_name(name: str) -> str:
    """The original's name of a parameter of the U-Net."""
    module, parameter = name.rsplit(".", 1)
    if module in _ROOT_MODULES:
        return f"{_ROOT_MODULES[module]}.{parameter}"
    if module in _MODULES:
        return f"{_MODULES[module]}.{parameter}"
    # the original counts the stem as the first stage on the way down
    module = re.sub(r"^down\.(\d+)", lambda match: f"down.{int(match[1]) + 1}", module)
    parent, _, leaf = module.rpartition(".")
    return f"{parent}.{_MODULES.get(leaf, leaf)}.{parameter}"


def _is_pointwise(name: str) -> bool:
    """Whether a parameter is the weight of a linear layer here and of a 1-wide convolution in the original."""
    return name.endswith(("qkv.weight", "projection.weight")) and not name.endswith("time_projection.weight")
