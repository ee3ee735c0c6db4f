# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""One page with everything that was found; pictures and plots are in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader

from anomalib_diffusionad.comparison.pictures import data_uri
from anomalib_diffusionad.comparison.scores import METRICS
from anomalib_diffusionad.comparison.units import quantity
from anomalib_diffusionad.torch_model import DiffusionADModel

from .suggestion import CRITERION, Suggestion

PARADIGMS = {"iterative": "iterative", "one_step": "one step", "norm_guided": "norm-guided"}


def write_page(
    path: Path,
    table: pd.DataFrame,
    suggestion: Suggestion,
    pictures: Mapping[str, Path],
    facts: Mapping[str, Any],
) -> Path:
    """Write the HTML page.

    Args:
        path: Where to write it.
        table: What was measured.
        suggestion: What to set.
        pictures: PNG files: ``reconstructions``, ``noise_scale``, ``t_small``, ``t_big`` and ``guidance_scale``.
        facts: What was looked at: ``ckpt_path``, ``data``, ``network``, ``machine``, ``images``,
            ``synthetic_images``, ``held_out`` and ``batch_size``.

    Returns:
        The path.
    """
    environment = Environment(loader=PackageLoader(__package__, "."), autoescape=True, trim_blocks=True)
    environment.filters["quantity"] = quantity
    metrics = [name for name in CRITERION if name in table and table[name].notna().any()]
    text = environment.get_template("page.html.j2").render(
        paradigms=_paradigms(table, facts["network"], metrics),
        metrics=[METRICS[name] for name in metrics],
        suggestion=suggestion,
        pictures={name: data_uri(file) for name, file in pictures.items()},
        **facts,
    )
    path.write_text(text, encoding="utf-8")
    return path


def _paradigms(table: pd.DataFrame, network: DiffusionADModel, metrics: list[str]) -> list[dict[str, Any]]:
    """Lines of table 3: the paradigms on the same few images, and those that are fast on all of them."""
    few = table[table.sweep == "paradigm"].set_index("denoising")
    lines = {("few", name): few.loc[name] for name in PARADIGMS if name in few.index}
    if "iterative" in few.index:
        test = table[(table.data == "test") & (table.t_small == network.t_small)]
        lines["all", "one_step"] = test[test.sweep == "one_step"].iloc[0]
        lines["all", "norm_guided"] = test[test.sweep == "t_small"].iloc[0]
    return [
        {
            "name": PARADIGMS[name],
            "images": int(row.images),
            "values": [100 * row[metric] for metric in metrics],
            "speed": float(few.loc[name].images_per_second),
        }
        for (_, name), row in lines.items()
    ]
