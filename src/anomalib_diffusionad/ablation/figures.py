# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Figures 7, 8 and 9 of the paper, on one's own data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from PIL import Image
from torch import Tensor

from anomalib_diffusionad.comparison.plot import COLOURS, MARKERS
from anomalib_diffusionad.comparison.scores import METRICS
from anomalib_diffusionad.torch_model import DiffusionADModel
from anomalib_diffusionad.visualization.pictures import picture
from anomalib_diffusionad.visualization.sheet import Tile, draw_sheet

from .samples import Samples
from .study import FEW
from .suggestion import CRITERION, SYNTHETIC
from .sweep import OneStep, Setting, applied

SIDE = 150
GRID = {"color": "#e2e8f0", "lw": 0.6}
PRESENT: dict[str, Any] = {"color": "#9aa7b8", "lw": 1.2, "ls": ":"}
LABELS = {
    "t_small": "small time step t_small",
    "t_big": "large time step t_big",
    "guidance_scale": "guidance scale w",
}


@torch.inference_mode()
def draw_reconstructions(
    network: DiffusionADModel, samples: Samples, times: Sequence[int], iterative: bool
) -> Image.Image:
    """Reconstructions against the noise scale (figure 7).

    Args:
        network: Network in evaluation mode.
        samples: A few images, one a row.
        times: Time steps of the one-step reconstructions.
        iterative: Whether to show the iterative reconstruction too.
    """
    image = samples.image.to(network.noise.device)
    columns: dict[str, Tensor] = {"input": image}
    if iterative:
        with applied(network, Setting.of(network, "iterative")):
            columns[f"iterative, t = {network.t_big}"] = network.restore(image)
    one_step = OneStep(network, image)
    columns |= {f"t = {t}": one_step(Setting("one_step", t)) for t in times}
    columns["guided"] = one_step(Setting.of(network, "norm_guided"))
    if samples.mask is not None:
        columns["truth"] = torch.from_numpy(samples.mask)[:, None].float().expand(-1, 3, -1, -1)
    tiles = [
        Tile(picture(values[row]), "/".join(Path(path).parts[-2:]) if values is image else "")
        for row, path in enumerate(samples.path)
        for values in columns.values()
    ]
    return draw_sheet(tiles, len(columns), SIDE, list(columns))


def plot_noise_scale(table: pd.DataFrame, network: DiffusionADModel, path: Path) -> Path:
    """Image AUROC and speed against the time step, of one-step and iterative denoising (figure 8)."""
    figure, (left, right) = _figure(2)
    for data, style in (("test", "-"), (FEW, "--")):
        rows = table[(table.sweep == "one_step") & (table.data == data)]
        if len(rows):
            left.plot(rows.t_small, 100 * rows.image_auroc, COLOURS[0], ls=style, marker=MARKERS[0], ms=5)
            left.lines[-1].set_label(f"one step, {rows.images.iloc[0]} images")
    speed = table[table.sweep == "paradigm"].set_index("denoising").images_per_second
    right.axhline(speed["one_step"], color=COLOURS[0], label="one step")
    right.axhline(speed["norm_guided"], color=COLOURS[2], label="norm-guided")
    iterative = table[table.sweep == "iterative"]
    if len(iterative):
        count = iterative.images.iloc[0]
        _line(left, iterative.t_big, iterative.image_auroc, 1, label=f"iterative, {count} images")
        _line(right, iterative.t_big, iterative.images_per_second, 1, label="iterative", scale=1)
    right.set(yscale="log", ylabel="Images per second", xlim=left.get_xlim(), ylim=_decades(right))
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter(NullFormatter())
    left.set(ylabel="Image AUROC in %")
    left.axvline(network.t_small, label=f"t_small = {network.t_small}", **PRESENT)
    for axes in (left, right):
        axes.set_xlabel("time step t")
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    figure.savefig(path, dpi=110)
    return path


def plot_sweep(table: pd.DataFrame, sweep: str, present: float, path: Path) -> Path:
    """Metrics against a time step or the guidance scale (figure 9), of test images and synthetic anomalies.

    Args:
        table: What was measured.
        sweep: ``"t_small"``, ``"t_big"`` or ``"guidance_scale"``.
        present: What the model is set to.
        path: PNG file to write.

    Returns:
        The path.
    """
    figure, (left, right) = _figure(2, shared=True)
    for axes, data in ((left, "test"), (right, SYNTHETIC)):
        rows = table[(table.sweep == sweep) & (table.data == data)]
        for number, metric in enumerate(CRITERION):
            if metric in rows and rows[metric].notna().any():
                _line(axes, rows[sweep], rows[metric], number)
        axes.axvline(present, **PRESENT)
        title = "Test images" if data == "test" else "Synthetic anomalies on training images"
        axes.set_title(title, fontsize=10)
        axes.set(xlabel=LABELS[sweep])
    left.set(ylabel="%")
    lines: list[Line2D] = [
        Line2D([], [], color=COLOURS[number], marker=MARKERS[number], label=METRICS[metric])
        for number, metric in enumerate(CRITERION)
    ]
    lines.append(Line2D([], [], label=f"present value, {present:g}", **PRESENT))
    figure.legend(handles=lines, frameon=False, loc="outside upper center", ncols=5, fontsize=9)
    figure.savefig(path, dpi=110)
    return path


def _figure(columns: int, shared: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.6 * columns, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, columns, sharey=shared))
    for axis in axes:
        axis.grid(**GRID)
        axis.set_axisbelow(True)
    return figure, axes


def _decades(axes: Axes) -> tuple[float, float]:
    """Whole powers of ten around all that is drawn."""
    values = np.log10(np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]))
    low, high = np.floor(values.min()), np.ceil(values.max())
    return 10**low, 10 ** max(high, low + 1)


def _line(axes: Axes, x: pd.Series, y: pd.Series, number: int, scale: float = 100, label: str | None = None) -> None:
    axes.plot(x, scale * y, color=COLOURS[number], marker=MARKERS[number], ms=5, label=label)
