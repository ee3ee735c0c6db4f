# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Which time steps and guidance scale to use, from synthetic anomalies alone."""

from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from anomalib_diffusionad.comparison.scores import PAPER_METRICS
from anomalib_diffusionad.torch_model import DiffusionADModel

from .samples import Samples
from .study import run_sweeps
from .sweep import Setting

CRITERION = list(PAPER_METRICS)
WORTHWHILE = 0.005  # a change must gain this much, or it is as likely chance
SYNTHETIC = "synthetic"


class Suggestion(NamedTuple):
    """What to set, and what it gains on synthetic anomalies.

    Attributes:
        setting: The suggested setting; the present one if no other is clearly better.
        value: Mean of the paper's four metrics with the suggested setting, in [0, 1].
        present: The same with the present setting.
        changed: Whether the two differ.
    """

    setting: Setting
    value: float
    present: float
    changed: bool


def suggest(
    network: DiffusionADModel, samples: Samples, table: pd.DataFrame, batch_size: int, bar: tqdm
) -> tuple[Suggestion, pd.DataFrame]:
    """Combine the best of each sweep on synthetic anomalies, if that is better than what was tried.

    Args:
        network: Network in evaluation mode.
        samples: Synthetic anomalies on normal training images.
        table: What :func:`~anomalib_diffusionad.ablation.study.run_sweeps` found on them.
        batch_size: Images at a time.
        bar: Progress bar that counts passes of the U-Net.

    Returns:
        The suggestion, and ``table`` with the combination as a further row.
    """
    if set(table.data) != {SYNTHETIC}:
        msg = "A suggestion is made from synthetic anomalies alone."
        raise ValueError(msg)
    best = {
        name: rows.loc[rows[CRITERION].mean(axis=1).idxmax()]
        for name, rows in table.groupby("sweep")
        if name != "one_step"
    }
    small, big = int(best["t_small"].t_small), int(best["t_big"].t_big)
    combined = Setting("norm_guided", small, big, float(best["guidance_scale"].guidance_scale))
    if small < big:
        sweep = {"combined": [combined]}
        table = pd.concat([table, run_sweeps(network, samples, sweep, SYNTHETIC, batch_size, bar)], ignore_index=True)
    guided = table[table.denoising == "norm_guided"]
    values = {
        Setting("norm_guided", int(row.t_small), int(row.t_big), float(row.guidance_scale)): value
        for (_, row), value in zip(guided.iterrows(), guided[CRITERION].mean(axis=1), strict=True)
    }
    present = Setting.of(network, "norm_guided")
    top = max(values, key=lambda setting: values[setting])
    changed = values[top] - values[present] >= WORTHWHILE
    chosen = top if changed else present
    return Suggestion(chosen, values[chosen], values[present], changed), table
