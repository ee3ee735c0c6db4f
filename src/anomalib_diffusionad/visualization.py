# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Reconstructions next to anomaly maps, as in figure 6 of the paper."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

COLUMNS = ("Input", "Reconstruction", "Anomaly map", "Ground truth")


def save_overview(
    path: str | Path,
    image: Tensor,
    reconstruction: Tensor,
    anomaly_map: Tensor,
    mask: Tensor,
    labels: list[str],
) -> Path:
    """Draw one row an image: input, reconstruction, anomaly map and ground truth.

    Args:
        path: PNG file to write; folders are made as needed.
        image: ``(N, 3, H, W)`` in [0, 1].
        reconstruction: ``(N, 3, H, W)``; shown clamped to [0, 1].
        anomaly_map: Probabilities, ``(N, 1, H, W)``.
        mask: Ground truth, ``(N, 1, H, W)``.
        labels: What to write beside each row.

    Returns:
        The path.
    """
    figure = Figure(figsize=(1.7 * len(COLUMNS) + 2.0, 1.7 * len(image) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(image), len(COLUMNS), squeeze=False)
    for row, label in enumerate(labels):
        pictures = (_rgb(image[row]), _rgb(reconstruction[row]), _grey(anomaly_map[row]), _grey(mask[row]))
        for axis, picture in zip(axes[row], pictures, strict=True):
            colours = {} if picture.ndim == 3 else {"cmap": "inferno", "vmin": 0, "vmax": 1}
            drawn = axis.imshow(picture, **colours)
            axis.set(xticks=[], yticks=[])
            if axis is axes[row][2]:
                heat = drawn
        axes[row][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=10)
    figure.colorbar(heat, ax=axes[:, 3], shrink=min(1.0, 3 / len(image)), label="Probability of an anomaly")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return Path(path)


def _rgb(image: Tensor) -> np.ndarray:
    return image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()


def _grey(image: Tensor) -> np.ndarray:
    return image.detach().float()[0].cpu().numpy()
