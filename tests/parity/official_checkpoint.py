# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint in the original's format, and the inputs, that the numbers in ``expected.npz`` belong to.

The original training script saves one dictionary per class::

    {"n_epoch": int, "unet_model_state_dict": ..., "seg_model_state_dict": ..., "args": collections.defaultdict}

Weights and inputs are drawn with ``numpy.random.RandomState``, whose stream is frozen.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent
INPUT_SEED = 12
INPUT_SHAPE = (2, 3, 64, 64)


def read_layout() -> dict[str, Any]:
    """Names and shapes of the entries of both networks in their order, settings, and the seed of the weights."""
    return json.loads((FOLDER / "layout.json").read_text(encoding="utf-8"))


def fill(layout: list[tuple[str, list[int]]], rng: np.random.RandomState) -> dict[str, torch.Tensor]:
    """Draw every entry of a network in order."""
    state = {}
    for name, shape in layout:
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "num_batches_tracked":
            state[name] = torch.zeros((), dtype=torch.long)
            continue
        draw = rng.standard_normal(shape).astype(np.float32)
        if leaf == "running_var":
            draw = 1.0 + 0.1 * np.abs(draw)
        elif leaf in {"bias", "running_mean"}:
            draw = 0.1 * draw
        elif len(shape) == 1:
            draw = 1.0 + 0.1 * draw
        else:
            draw = draw / np.sqrt(np.prod(shape[1:]))
        state[name] = torch.from_numpy(np.ascontiguousarray(draw, dtype=np.float32))
    return state


def official_checkpoint() -> dict[str, Any]:
    """The dictionary that the original's script would save."""
    layout = read_layout()
    rng = np.random.RandomState(layout["seed"])
    return {
        "n_epoch": 3000,
        "unet_model_state_dict": fill(layout["unet"], rng),
        "seg_model_state_dict": fill(layout["seg"], rng),
        "args": defaultdict(str, layout["args"]),
    }


def inputs() -> dict[str, torch.Tensor]:
    """Images in [0, 1] and the noise of both scales, each ``(2, 3, 64, 64)``."""
    rng = np.random.RandomState(INPUT_SEED)
    draws = {
        "x": rng.random_sample(INPUT_SHAPE),
        "noise_small": rng.standard_normal(INPUT_SHAPE),
        "noise_big": rng.standard_normal(INPUT_SHAPE),
    }
    return {name: torch.from_numpy(draw.astype(np.float32)) for name, draw in draws.items()}


def expected() -> dict[str, torch.Tensor]:
    """What the original code computes from :func:`inputs`, and those."""
    with np.load(FOLDER / "expected.npz") as arrays:
        return inputs() | {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays}
