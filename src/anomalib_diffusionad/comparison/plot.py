# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Accuracy against speed, as in figure 2 of the paper, as an SVG."""

import io

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

COLOURS = ("#0b6e99", "#d1495b", "#2f855a", "#8d5fd3", "#b7791f", "#4a5568")
MARKERS = "osD^vP"


def accuracy_against_speed(speed: dict[str, float], accuracy: pd.DataFrame, label: str) -> Markup:
    """Draw one point a model.

    Args:
        speed: Images a second by model.
        accuracy: ``mean`` and ``std`` in percent, indexed by model.
        label: Name of the accuracy.

    Returns:
        An ``<svg>`` element.
    """
    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (model, row) in enumerate(accuracy.iterrows()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        error = None if pd.isna(row["std"]) else row["std"]
        axes.errorbar(speed[str(model)], row["mean"], error, fmt=marker, ms=9, color=colour, capsize=3, label=model)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.25, y=0.25)
    axes.set_ylim(top=min(axes.get_ylim()[1], 104))
    axes.set(xlabel="Images per second at the best batch size", ylabel=f"{label} in %")
    axes.grid(which="both", color="#e2e8f0", lw=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3, columnspacing=1.0)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # noqa: S704 - matplotlib escapes the labels
